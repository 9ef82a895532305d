//! Where Splunk's HTTP Event Collector has its doors ("HTTP Event Collector REST API endpoints").

use super::body::Metadata;
use crate::config::Format;
use crate::config::endpoint::Endpoint;
use reqwest::Url;

/// All of them begin so; in front of it a proxy may have put something.
const COLLECTOR: &str = "/services/collector";

/// Where records are sent: the endpoint's URL, with Splunk's own path if it names none, and for raw events with their
/// metadata in the query. What the query has already wins.
pub(super) fn events(endpoint: &Endpoint) -> Url {
    let mut url = endpoint.url.clone();
    let standard = match endpoint.format {
        Format::HecEvent => "/event",
        Format::HecRaw => "/raw",
        Format::Ndjson | Format::Auto => return url,
    };
    if matches!(url.path(), "" | "/") {
        url.set_path(&format!("{COLLECTOR}{standard}"));
    }
    if endpoint.format == Format::HecRaw {
        let missing: Vec<_> = Metadata::of(&endpoint.hec)
            .pairs()
            .filter(|(name, _)| url.query_pairs().all(|(present, _)| present != *name))
            .collect();
        if !missing.is_empty() {
            url.query_pairs_mut().extend_pairs(missing);
        }
    }
    url
}

/// Where acknowledgements are asked for.
pub(super) fn acknowledgements(endpoint: &Endpoint, channel: &str) -> Url {
    let mut url = beside(&endpoint.url, "/ack");
    url.query_pairs_mut().append_pair("channel", channel);
    url
}

/// Where its health is asked for.
pub(super) fn health(endpoint: &Endpoint) -> Url {
    beside(&endpoint.url, "/health")
}

fn beside(url: &Url, door: &str) -> Url {
    let before = url.path().split_once(COLLECTOR).map_or("", |(before, _)| before);
    let path = format!("{before}{COLLECTOR}{door}");
    let mut url = url.clone();
    url.set_path(&path);
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::testing;

    fn endpoint(format: Format, url: &str) -> Endpoint {
        let mut endpoint = Endpoint { format, ..testing::endpoint(url) };
        endpoint.hec.index = Some("au dit".to_owned());
        endpoint.hec.source = Some("s".to_owned());
        endpoint
    }

    #[test]
    fn every_door_is_found_from_the_endpoint() {
        for (format, given, expected) in [
            (Format::HecEvent, "https://s:8088", "https://s:8088/services/collector/event"),
            (Format::HecEvent, "https://s:8088/services/collector", "https://s:8088/services/collector"),
            (Format::HecEvent, "https://s/p/services/collector/event/1.0", "https://s/p/services/collector/event/1.0"),
            (Format::HecRaw, "https://s:8088/", "https://s:8088/services/collector/raw?source=s&index=au+dit"),
            (Format::HecRaw, "https://s/other?index=mine&a=b", "https://s/other?index=mine&a=b&source=s"),
            (Format::Ndjson, "https://s/", "https://s/"),
        ] {
            assert_eq!(events(&endpoint(format, given)).as_str(), expected);
        }
        let raw = endpoint(Format::HecRaw, "https://s/p/services/collector/raw?token=x");
        assert_eq!(acknowledgements(&raw, "1").as_str(), "https://s/p/services/collector/ack?token=x&channel=1");
        assert_eq!(health(&endpoint(Format::HecEvent, "https://s")).as_str(), "https://s/services/collector/health");
    }
}
