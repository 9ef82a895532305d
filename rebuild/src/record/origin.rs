//! Who asked whom: addresses and process of a record as JSON. They are the same for every record of a connection, so what
//! was written for the record before is written again as long as nothing has changed.

use super::client::ClientAddress;
use super::document::{Endpoint, Process};
use super::headers::{self, Json};
use super::served::Cgroups;
use super::{json, texts};
use crate::exchange::ConnectionInfo;
use serde::Serialize;
use std::net::SocketAddr;

/// How many are kept; each connection has one place, which it shares with others.
const PLACES: usize = 512;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Origins(Vec<Option<Origin>>);

/// What is written of one connection, and what it was written from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    connection: ConnectionInfo,
    client: ClientAddress,
    /// How often cgroups had been told of.
    told: u64,
    client_address: Vec<u8>,
    peer: Vec<u8>,
    server: Vec<u8>,
    process: Vec<u8>,
    /// Fields that were cut.
    pub(super) truncated: Vec<&'static str>,
}

impl Origins {
    pub(super) fn new() -> Self {
        Self(vec![None; PLACES])
    }

    /// Of this connection, whose client is this one by what the request and the settings say. None: never, as there is a
    /// place for each.
    pub(super) fn of(
        &mut self,
        connection: &ConnectionInfo,
        client: ClientAddress,
        cgroups: &Cgroups,
    ) -> Option<&Origin> {
        let at = usize::try_from(connection.cookie).unwrap_or_default() % PLACES;
        let place = self.0.get_mut(at)?;
        let told = cgroups.times_told();
        let is_kept = |kept: &Origin| kept.client == client && kept.told == told && kept.connection == *connection;
        if !place.as_ref().is_some_and(is_kept) {
            *place = Some(Origin::of(connection, client, cgroups));
        }
        place.as_ref()
    }
}

impl Origin {
    fn of(connection: &ConnectionInfo, client: ClientAddress, cgroups: &Cgroups) -> Self {
        let mut truncated = Vec::new();
        let mut cut = |name, text| {
            let mut is_cut = false;
            let text = headers::cut_to(text, headers::MAX_VALUE_BYTES, &mut is_cut);
            truncated.extend(is_cut.then_some(name));
            text
        };
        let served = cgroups.of(connection.cgroup_id);
        let comm = connection.comm.as_str();
        let most = comm.char_indices().nth(64).map_or(comm.len(), |(at, _)| at);
        let process = Process {
            pid: connection.tgid,
            comm: comm.get(..most).unwrap_or_default(),
            cgroup_id: (connection.cgroup_id != 0).then(|| texts::number(connection.cgroup_id)),
            cgroup: served.map(|served| cut("process.cgroup", &served.cgroup)),
            unit: served.and_then(|served| Some(cut("process.unit", served.unit.as_deref()?))),
            container: served.and_then(|served| served.container.as_deref()),
            netns: connection.netns,
        };
        let source = Some(client.source.name());
        Self {
            connection: connection.clone(),
            client,
            told: cgroups.times_told(),
            client_address: written(&Endpoint { ip: texts::ip(client.ip), port: client.port, source }),
            peer: written(&endpoint(connection.client)),
            server: written(&endpoint(connection.server)),
            process: written(&process),
            truncated,
        }
    }

    pub(super) fn client_address(&self) -> Json<'_> {
        Json(&self.client_address)
    }

    pub(super) fn peer(&self) -> Json<'_> {
        Json(&self.peer)
    }

    pub(super) fn server(&self) -> Json<'_> {
        Json(&self.server)
    }

    pub(super) fn process(&self) -> Json<'_> {
        Json(&self.process)
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { ip: texts::ip(address.ip().to_canonical()), port: Some(address.port()), source: None }
}

fn written(value: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::new();
    // Texts and numbers: the writer knows all of that.
    if json::write(&mut json, value).is_err() {
        json.clear();
    }
    json
}

#[cfg(test)]
mod tests {
    use super::super::client::AddressSource;
    use super::super::served::Served;
    use super::*;

    fn connection(cookie: u64) -> ConnectionInfo {
        ConnectionInfo {
            cookie,
            client: ([10, 0, 0, 1], 4000).into(),
            announced: None,
            server: ([10, 0, 0, 2], 9000).into(),
            netns: 1,
            tgid: 2,
            cgroup_id: 3,
            comm: "minio".to_owned(),
            preexisting: false,
            tls: None,
        }
    }

    #[test]
    fn what_changed_is_written_anew() {
        let (mut origins, mut cgroups) = (Origins::new(), Cgroups::default());
        let client = ClientAddress { ip: [10, 0, 0, 1].into(), port: Some(4000), source: AddressSource::Socket };
        let mut shown = |connection: &ConnectionInfo, client, cgroups: &Cgroups| {
            let mut twice = [(); 2].map(|()| {
                let origin = origins.of(connection, client, cgroups).unwrap();
                let parts = [&origin.client_address, &origin.peer, &origin.server, &origin.process];
                String::from_utf8(parts.map(Clone::clone).concat()).unwrap()
            });
            assert_eq!(twice[0], twice[1]);
            std::mem::take(&mut twice[0])
        };
        let first = connection(7);
        let address = r#"{"ip":"10.0.0.1","port":4000,"source":"socket"}{"ip":"10.0.0.1","port":4000}"#;
        let server = r#"{"ip":"10.0.0.2","port":9000}"#;
        let process = r#"{"pid":2,"comm":"minio","cgroupId":"3","netns":1}"#;
        assert_eq!(shown(&first, client, &cgroups), format!("{address}{server}{process}"));
        let behind = ClientAddress { ip: [1, 2, 3, 4].into(), port: None, source: AddressSource::Forwarded };
        assert!(
            shown(&first, behind, &cgroups).starts_with(r#"{"ip":"1.2.3.4","source":"forwarded"}{"ip":"10.0.0.1""#)
        );
        cgroups.tell(3, Served::of_path("/a.service"));
        assert!(shown(&first, client, &cgroups).contains(r#""cgroup":"/a.service","unit":"a.service""#));
        // One that shares its place, and one of which only the process is another.
        let other = ConnectionInfo { server: ([10, 0, 0, 2], 9001).into(), ..connection(7 + PLACES as u64) };
        assert!(shown(&other, client, &cgroups).contains(r#""port":9001"#));
        assert!(shown(&ConnectionInfo { tgid: 4, ..first }, client, &cgroups).contains(r#"{"pid":4"#));
    }
}
