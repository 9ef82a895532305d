//! GnuTLS (x86-64): its public functions, at their entry and at their return. Their results are lengths, so the programs for
//! the returns, and the tie to sockets, are OpenSSL's (`openssl.rs`). Where they are is found by the agent
//! (`agent/src/capture/tls/gnutls.rs`).

use super::{
    openssl::entered,
    tls::{Told, registers, user},
};
use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use s3auditd_common::settings::openssl::role_at;

/// `GNUTLS_CLIENT`, in the first word of a session (`security_parameters.entity`).
const CLIENT: u32 = 2;
/// `RECORD_CORKED`: what is sent is only kept, and passes here again when it is let go.
const CORKED: u32 = 1;

/// `gnutls_record_recv(session, data, size)`, `gnutls_record_send2(session, data, size, ...)`, `gnutls_handshake(session)`
#[uprobe]
pub fn gnutls_called(context: ProbeContext) -> u32 {
    let (registers, told) = (registers(&context), Told::to(&context));
    let corked_at = u64::from(role_at(told.own));
    if user::<u32>(registers.rdi) == CLIENT
        || corked_at != 0 && user::<u32>(registers.rdi.wrapping_add(corked_at)) == CORKED
    {
        return 0;
    }
    entered(registers, 0);
    0
}
