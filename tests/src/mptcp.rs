//! Multipath TCP sockets: the standard library's types, over another protocol. (Go programs listen so by default.)

use rustix::net::{AddressFamily, SocketType, bind, connect as connect_to, ipproto, listen, socket};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

fn new(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    Ok(socket(family, SocketType::STREAM, Some(ipproto::MPTCP))?)
}

/// A listener.
///
/// # Errors
/// The kernel has no such protocol, or it is switched off; and the socket's.
pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new(address)?;
    bind(&socket, &address)?;
    listen(&socket, 128)?;
    Ok(TcpListener::from(socket))
}

/// A connection; plain TCP if the other end does not speak it.
///
/// # Errors
/// As [`listener`].
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = new(address)?;
    connect_to(&socket, &address)?;
    Ok(TcpStream::from(socket))
}
