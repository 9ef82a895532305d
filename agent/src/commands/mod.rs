//! Commands with commands of their own.

pub(crate) mod spool;
pub(crate) mod webhook;
