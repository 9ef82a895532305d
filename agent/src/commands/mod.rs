//! Commands with a file of their own.

pub(crate) mod doctor;
pub(crate) mod spool;
pub(crate) mod webhook;
