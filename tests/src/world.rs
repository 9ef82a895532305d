//! A gateway, a webhook and the daemon between them: what nearly every scenario starts with and ends with.

use crate::call::Call;
use crate::daemon::{Daemon, Ended, Status};
use crate::expect;
use crate::gateway::Gateway;
use crate::record::Record;
use crate::webhook::Webhook;
use anyhow::Context as _;
use std::time::Duration;

/// How long records may take from the last call to the webhook.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long to listen on for records that should not come.
const SURPLUS_PATIENCE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct World {
    /// What the clients talk to.
    pub gateway: Gateway,
    /// What the daemon talks to.
    pub webhook: Webhook,
    /// Its probes are attached.
    pub daemon: Daemon,
}

/// What is left of a world: everything that the daemon had to say.
#[derive(Debug)]
pub struct After {
    /// Its last status before it was told to end.
    pub status: Status,
    /// How it ended.
    pub ended: Ended,
    /// Every operation's record that the webhook has, in order.
    pub records: Vec<Record>,
}

impl World {
    /// With a daemon on the gateway's port, and these flags besides.
    ///
    /// # Errors
    /// The webhook or the daemon does not start.
    pub fn around(gateway: Gateway, flags: &[&str]) -> anyhow::Result<Self> {
        let webhook = Webhook::start()?;
        let daemon = Daemon::start(&[gateway.port()], Some(&webhook.url()), flags)?;
        Ok(Self { gateway, webhook, daemon })
    }

    /// Waits for a record of each call, a moment more for records too many, then ends the daemon.
    ///
    /// # Errors
    /// The daemon answers no more, or does not end, or ends with an error.
    pub fn settle(self, calls: usize) -> anyhow::Result<After> {
        // Fewer than that is the caller's finding, who can say which ones.
        let _ = self.webhook.wait_for(calls, PATIENCE);
        std::thread::sleep(SURPLUS_PATIENCE);
        let status = self.daemon.status_when(PATIENCE, |status| status.ring_agrees().is_ok())?;
        let ended = self.daemon.stop()?;
        let records = self.webhook.records().into_iter().filter(Record::is_operation).collect();
        let rubbish = self.webhook.rubbish();
        anyhow::ensure!(rubbish.is_empty(), "lines that are no JSON objects: {rubbish:?}");
        anyhow::ensure!(ended.status.success(), "the daemon ended with {}\n{}", ended.status, ended.stderr);
        Ok(After { status, ended, records })
    }

    /// Settles and holds the records against the calls, the counters against each other.
    ///
    /// # Errors
    /// See [`expect::same`] and [`Status::whole`].
    pub fn expect(self, calls: &[Call]) -> anyhow::Result<After> {
        let after = self.settle(calls.len())?;
        let said = || format!("status: {}\nstderr:\n{}", after.status.0, after.ended.stderr);
        expect::same(calls, &after.records).with_context(said)?;
        after.status.whole().with_context(said)?;
        Ok(after)
    }
}
