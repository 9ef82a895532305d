//! How a record of our own is put together, and bounded.

use super::{Event, EventRecord, MAX_ENTRIES, MAX_TEXT_BYTES, Moment};
use crate::record::{Number, RecordSettings, document, headers};
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "auditVersion")]
    audit_version: &'static str,
    #[serde(rename = "deploymentid", skip_serializing_if = "str::is_empty")]
    deployment_id: &'a str,
    s3auditd: Own<'a>,
    time: Moment,
    #[serde(rename = "wekaInfo", skip_serializing_if = "document::WekaInfo::is_empty")]
    weka_info: &'a document::WekaInfo,
}

#[derive(Serialize)]
struct Own<'a> {
    #[serde(flatten)]
    identity: document::Identity<'a>,
    #[serde(flatten)]
    event: Event,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    truncated: Vec<&'static str>,
}

/// Puts a record of our own together.
pub(in crate::record) fn record(
    settings: &RecordSettings,
    mut event: Event,
    time: Moment,
    number: &Number,
) -> EventRecord {
    let (sequence, kind) = (number.sequence, event.kind());
    let truncated = Bounding::of(&mut event);
    let document = Document {
        audit_version: document::AUDIT_VERSION,
        deployment_id: &settings.deployment_id,
        s3auditd: Own { identity: document::Identity::new(settings, kind, number), event, truncated },
        time,
        weka_info: &settings.weka_info,
    };
    let mut json = Vec::with_capacity(1024);
    // Strings, numbers and maps of strings into memory: serde_json has no way to fail on these.
    if serde_json::to_writer(&mut json, &document).is_err() {
        json.clear();
    }
    EventRecord { sequence, kind, json }
}

/// Cuts what is too long, and says what was cut.
#[derive(Default)]
struct Bounding {
    cut: Vec<&'static str>,
}

impl Bounding {
    fn of(event: &mut Event) -> Vec<&'static str> {
        let mut bounding = Self::default();
        match event {
            Event::Gap(gap) => {
                bounding.option("endpoint", &mut gap.endpoint);
                bounding.list("sequences", &mut gap.sequences);
                for range in &mut gap.sequences {
                    bounding.option("sequences", &mut range.instance_id);
                    bounding.option("sequences", &mut range.previous);
                }
            }
            Event::Start(start) => {
                bounding.text("version", &mut start.version);
                bounding.text("backend", &mut start.backend);
                bounding.list("ports", &mut start.ports);
                if let Some(previous) = &mut start.previous {
                    bounding.text("previous", &mut previous.instance_id);
                }
            }
            Event::Stop(stop) => {
                bounding.text("reason", &mut stop.reason);
                bounding.list("losses", &mut stop.losses);
            }
            Event::Recovery(recovery) => {
                bounding.text("instanceId", &mut recovery.instance_id);
                bounding.option("bootId", &mut recovery.boot_id);
                bounding.option("lastTime", &mut recovery.last_time);
            }
            Event::Coverage(coverage) => {
                bounding.text("backend", &mut coverage.backend);
                bounding.text("backendReason", &mut coverage.backend_reason);
                bounding.list("ports", &mut coverage.ports);
            }
            Event::Configuration(configuration) => {
                bounding.text("source", &mut configuration.source);
                bounding.option("error", &mut configuration.error);
                bounding.list("changes", &mut configuration.changes);
                for change in &mut configuration.changes {
                    bounding.text("changes", &mut change.key);
                    bounding.text("changes", &mut change.old);
                    bounding.text("changes", &mut change.new);
                }
            }
            Event::Checkpoint(checkpoint) => {
                bounding.text("covers", &mut checkpoint.covers.instance_id);
            }
        }
        bounding.cut.sort_unstable();
        bounding.cut.dedup();
        bounding.cut
    }

    fn text(&mut self, name: &'static str, text: &mut String) {
        let mut truncated = false;
        *text = headers::cut(std::mem::take(text), MAX_TEXT_BYTES, &mut truncated);
        if truncated {
            self.cut.push(name);
        }
    }

    fn option(&mut self, name: &'static str, text: &mut Option<String>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn list<T>(&mut self, name: &'static str, list: &mut Vec<T>) {
        if list.len() > MAX_ENTRIES {
            list.truncate(MAX_ENTRIES);
            self.cut.push(name);
        }
    }
}
