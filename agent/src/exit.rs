//! How the process ends, as a number that scripts and systemd can act on. `docs/operate.md` lists the same.

use std::process::ExitCode;

/// Exit codes of every `s3auditd` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command did what it was asked.
    Ok = 0,
    /// Something failed that no other code names; the message says what.
    Internal = 1,
    /// The command line, the environment or the configuration file is wrong.
    Usage = 2,
    /// A privilege (capability) is missing.
    Privilege = 3,
    /// The kernel lacks what is needed: BTF, or every hook that a backend could use.
    Kernel = 4,
    /// The metrics address cannot be bound.
    Bind = 5,
    /// `status`: no daemon answers at the address.
    NoDaemon = 6,
    /// Stopped as asked, but records were left undelivered when `drain-seconds` had passed.
    Undelivered = 7,
    /// The reader of standard output went away.
    StdoutClosed = 8,
    /// `verify`: the audit stream is broken or incomplete.
    NotWhole = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
