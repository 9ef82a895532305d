//! What may change while the daemon runs: on SIGHUP the configuration is read again, on `s3auditd webhook` the default
//! endpoint is another one. A change is tried whole before anything is touched; one that does not work changes nothing.
//! Either way the audit stream says so.

use super::Signals;
use super::batch_limits;
use super::endpoints::{Endpoints, Wanted};
use crate::config::keys::Config;
use crate::config::reload::Change;
use crate::config::{Loaded, Sources, endpoint};
use crate::control::managed::{Managed, Webhook as Given};
use crate::control::{Asked, Reply, Request};
use crate::deliver::webhook::Webhook;
use crate::health::Health;
use crate::notices::{Notice, Notices};
use crate::queue::BatchLimits;
use s3auditd_rebuild::record::event::{ChangedKey, ConfigurationRecord};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// The configuration in effect, and what the command line made of it.
pub(super) struct Settings {
    pub(super) sources: Sources,
    loaded: Loaded,
    managed: Managed,
    /// With the managed webhook.
    config: Config,
}

impl Settings {
    /// As a start finds it.
    pub(super) fn of(sources: Sources, loaded: Loaded) -> Result<Self, String> {
        let managed = match &loaded.config.spool_dir {
            Some(directory) => Managed::read(directory).map_err(|error| error.to_string())?,
            None => Managed::default(),
        };
        let config = effective(&loaded.config, &managed)?;
        Ok(Self { sources, loaded, managed, config })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether `s3auditd webhook` has switched the default endpoint off.
    pub(super) fn is_disabled(&self) -> bool {
        self.managed.disabled
    }

    /// See [`Wanted::open`].
    pub(super) fn wanted(&self) -> Result<Wanted, crate::deliver::webhook::WebhookError> {
        Wanted::open(&self.config.endpoints, self.managed.disabled)
    }
}

fn effective(config: &Config, managed: &Managed) -> Result<Config, String> {
    match &managed.webhook {
        Some(webhook) => config.with_webhook(webhook),
        None => Ok(config.clone()),
    }
}

/// See the module.
pub(super) struct Manager {
    pub(super) settings: Settings,
    pub(super) endpoints: Endpoints,
    pub(super) notices: Notices,
    pub(super) limits: watch::Sender<BatchLimits>,
    pub(super) health: Arc<Health>,
    pub(super) asked: mpsc::Receiver<Asked>,
}

impl Manager {
    /// Until a signal says to stop, or delivery has ended by itself.
    pub(super) async fn run(&mut self, signals: &mut Signals) {
        loop {
            tokio::select! {
                () = signals.stop.next() => return,
                () = self.endpoints.ended() => return,
                () = signals.reload.next() => self.reload().await,
                Some(Asked { request, answer }) = self.asked.recv() => {
                    let reply = self.settle(request).await;
                    // Whoever asked may be gone.
                    let _gone = answer.send(reply);
                }
            }
        }
    }

    async fn reload(&mut self) {
        match self.try_reload().await {
            Ok(changes) if changes.is_empty() => info!("the configuration was read again; nothing has changed"),
            Ok(changes) => {
                for Change { key, old, new, live } in &changes {
                    if *live {
                        info!(key, old, new, "the configuration has changed");
                    } else {
                        warn!(key, old, new, "this change takes effect with the next start");
                    }
                }
                let config = self.settings.config.clone();
                self.say("sighup", &changes, None, Some(Box::new(config)));
            }
            Err(error) => {
                warn!(error, "the new configuration is not used; the old one stays");
                self.say("sighup", &[], Some(error), None);
            }
        }
    }

    async fn try_reload(&mut self) -> Result<Vec<Change>, String> {
        let loaded = self.settings.sources.load().map_err(|error| error.to_string())?;
        loaded.config.check_run().map_err(|error| error.to_string())?;
        let config = effective(&loaded.config, &self.settings.managed)?;
        let wanted = Wanted::open(&config.endpoints, self.settings.managed.disabled);
        let wanted = wanted.map_err(|error| error.to_string())?;
        let changes = self.settings.loaded.settings.changes(&loaded.settings);
        // Also without changes: a token or a certificate may be another one in the same file.
        self.endpoints.apply(wanted).await;
        self.limits.send_replace(batch_limits(&config));
        self.settings =
            Settings { loaded, config, sources: self.settings.sources.clone(), managed: self.settings.managed.clone() };
        Ok(changes)
    }

    async fn settle(&mut self, request: Request) -> Reply {
        match request {
            Request::Show => Reply::Done(self.show()),
            Request::Enable { webhook, verify } => {
                let managed = Managed { disabled: false, webhook: Some(webhook.clone()) };
                self.manage("webhook enable", managed, Some(&webhook), verify).await
            }
            Request::Disable => {
                let managed = Managed { disabled: true, webhook: self.settings.managed.webhook.clone() };
                self.manage("webhook disable", managed, None, false).await
            }
        }
    }

    async fn manage(&mut self, source: &str, managed: Managed, given: Option<&Given>, verify: bool) -> Reply {
        let old = self.default_endpoint();
        match self.try_manage(managed, verify).await {
            Ok(done) => {
                info!(source, done, "the webhook has changed");
                let mut changes = vec![changed("webhook", old, self.default_endpoint())];
                if given.is_some_and(|given| given.auth_token.is_some() || given.auth_token_file.is_some()) {
                    changes.push(changed("auth-token", "(redacted)".to_owned(), "(redacted)".to_owned()));
                }
                self.say(source, &changes, None, None);
                Reply::Done(done)
            }
            Err(error) => {
                warn!(source, error, "the webhook stays as it is");
                self.say(source, &[], Some(error.clone()), None);
                Reply::Refused(error)
            }
        }
    }

    async fn try_manage(&mut self, managed: Managed, verify: bool) -> Result<String, String> {
        let config = effective(&self.settings.loaded.config, &managed)?;
        let Some(endpoint) = config.endpoints.iter().find(|endpoint| endpoint.name == endpoint::DEFAULT) else {
            return Err("there is no webhook; records go to standard output".to_owned());
        };
        let mut done = if managed.disabled {
            "disabled; records wait in the spool".to_owned()
        } else {
            format!("enabled: {}", endpoint.url)
        };
        if verify {
            let webhook = Webhook::open(endpoint.clone()).map_err(|error| error.to_string())?;
            let proven = webhook.verify().await.map_err(|error| format!("not enabled: {error}"))?;
            done = format!("{done} ({proven})");
        }
        let wanted = Wanted::open(&config.endpoints, managed.disabled).map_err(|error| error.to_string())?;
        match self.settings.config.spool_dir.clone() {
            Some(directory) => {
                make_directory(&directory).map_err(|error| format!("spool-dir {}: {error}", directory.display()))?;
                managed.write(&directory).map_err(|error| error.to_string())?;
            }
            None => done.push_str("; spool-dir is off, so a restart forgets this"),
        }
        self.endpoints.apply(wanted).await;
        (self.settings.config, self.settings.managed) = (config, managed);
        Ok(done)
    }

    fn default_endpoint(&self) -> String {
        let endpoint = self.settings.config.endpoints.iter().find(|endpoint| endpoint.name == endpoint::DEFAULT);
        match endpoint {
            None => "standard output".to_owned(),
            Some(endpoint) if self.settings.managed.disabled => format!("disabled: {}", endpoint.url),
            Some(endpoint) => endpoint.url.to_string(),
        }
    }

    fn show(&self) -> String {
        let status = self.health.status();
        let from = match (&self.settings.managed.webhook, self.settings.managed.disabled) {
            (None, false) => "the configuration",
            _ => "s3auditd webhook",
        };
        let mut lines = vec![format!("webhook: {}", self.default_endpoint()), format!("set by: {from}")];
        if let Some(delivery) = status.delivery.get(endpoint::DEFAULT) {
            lines.push(format!("state: {}", delivery.state.name()));
            lines.extend(delivery.last_error.iter().map(|error| format!("last error: {error}")));
        }
        if let Some(books) = status.records.endpoints.get(endpoint::DEFAULT) {
            let waiting = books.waiting.plus(books.in_flight).records;
            lines.push(format!("delivered: {}", books.delivered.records));
            lines.push(format!("waiting: {waiting}"));
        }
        lines.join("\n")
    }

    fn say(&self, source: &str, changes: &[Change], error: Option<String>, settings: Option<Box<Config>>) {
        let changes = changes.iter().map(|Change { key, old, new, live }| ChangedKey {
            key: key.clone(),
            old: old.clone(),
            new: if *live { new.clone() } else { format!("{new} (with the next start)") },
        });
        let said = ConfigurationRecord {
            source: source.to_owned(),
            accepted: error.is_none(),
            error,
            changes: changes.collect(),
        };
        self.notices.put(Notice::Configuration { said, settings });
    }
}

fn changed(key: &str, old: String, new: String) -> Change {
    Change { key: key.to_owned(), old, new, live: true }
}

fn make_directory(directory: &PathBuf) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
