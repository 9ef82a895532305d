//! `s3auditd doctor`: what this node offers to the agent, what is missing, and what would be lost.
//!
//! [`facts`] looks (and tries: the probes are loaded, attached and taken out again), [`judge`] says what it means.

pub mod facts;
mod judge;

pub use judge::judge;

use crate::exit::Exit;
use serde::Serialize;
use std::fmt::Write as _;

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and something is not seen, not kept, or slower.
    Limited,
    /// Something does not work without it.
    Missing,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// See [`Verdict`].
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What follows from it; empty: nothing that one had to know.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consequence: String,
}

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether operations on this node can be seen.
    pub works: bool,
    /// The exit code that `run` would have: 0 if it works.
    pub exit_code: u8,
    /// By which backend, or why not.
    pub because: String,
    /// In the order in which they matter.
    pub checks: Vec<Check>,
    #[serde(skip)]
    exit: Exit,
}

impl Report {
    /// How the command ends.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// For people: one line a check.
    #[must_use]
    pub fn render(&self) -> String {
        let widest = self.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        let mut text = String::new();
        for Check { name, verdict, found, consequence } in &self.checks {
            let dash = if consequence.is_empty() { "" } else { ": " };
            let _ = writeln!(text, "{:<8}{name:<widest$}  {found}{dash}{consequence}", verdict.name());
        }
        let _ = match self.works {
            true => writeln!(text, "\ncapture works here: {}", self.because),
            false => writeln!(text, "\ncapture does not work here: {}", self.because),
        };
        text
    }
}
