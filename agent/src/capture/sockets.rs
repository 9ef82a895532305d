//! Sockets as `/proc/net` shows them, in the agent's own network namespace: who listens, what is open.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader},
};

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// TCP states as the tables write them.
const LISTEN: &str = "0A";
const ESTABLISHED: &str = "01";
const CLOSE_WAIT: &str = "08";

/// Ports that something listens on. Cheap on a busy node: the tables show listeners first, and reading stops behind them.
#[must_use]
pub fn listening_ports() -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for_each(|port, state| {
        if state == LISTEN {
            ports.insert(port);
        }
        state == LISTEN
    });
    ports
}

/// How many connections are open on these local ports.
#[must_use]
pub fn open_connections(watched: &[u16]) -> u64 {
    let mut open = 0;
    for_each(|port, state| {
        if matches!(state, ESTABLISHED | CLOSE_WAIT) && watched.contains(&port) {
            open += 1;
        }
        true
    });
    open
}

/// Calls `each` with local port and state until it answers false; a table that cannot be read (no IPv6) is empty.
fn for_each(mut each: impl FnMut(u16, &str) -> bool) {
    for table in TABLES {
        let Ok(file) = File::open(table) else { continue };
        for line in BufReader::new(file).lines().skip(1).map_while(Result::ok) {
            if let Some((port, state)) = entry(&line)
                && !each(port, state)
            {
                break;
            }
        }
    }
}

/// Local port and state of a line: `sl local_address rem_address st ...`, addresses as hex `ADDRESS:PORT`.
fn entry(line: &str) -> Option<(u16, &str)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    Some((u16::from_str_radix(port, 16).ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn lines_of_the_table_are_read() {
        let line = "   0: 0100007F:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1";
        assert_eq!(entry(line), Some((9000, "0A")));
        assert_eq!(entry("nonsense"), None);
        assert_eq!(entry("0: 00:zz 00:00 01"), None);
    }

    #[test]
    fn a_listener_and_its_connections_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listening_ports().contains(&address.port()));
        assert_eq!(open_connections(&[address.port()]), 0);
        let _client = TcpStream::connect(address).unwrap();
        let _server = listener.accept().unwrap();
        assert_eq!(open_connections(&[address.port()]), 1);
    }
}
