//! The end-to-end suite: each trial is one scenario with live probes on this machine's kernel.
//!
//! Run through `cargo xtask test [FILTER]`, which fetches the gateways and clients and says where they are. A scenario
//! whose needs are not met is ignored with the reason printed; with `CI=true` or `S3AUDITD_NO_SKIP=1` it fails instead,
//! unless it is the machine's kernel that is built without something: what is about that runs in guests.

mod bodies;
mod boringssl;
mod capture;
mod clients;
mod delivery;
mod gateways;
mod kernel;
mod leftovers;
mod load;
mod openssl;
mod openssl_inside;
mod oracle;
mod record;
mod secrets;
mod silence;
mod start;
mod tls;
mod tls_elsewhere;
mod tls_go;
mod tls_load;
mod unseen;
mod wire;

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use s3auditd_tests::need::Need;
use std::process::ExitCode;

/// One thing that has to be true of the whole.
pub(crate) struct Scenario {
    /// What is true, as a name.
    pub(crate) name: String,
    /// Besides [`Need::Daemon`].
    pub(crate) needs: Vec<Need>,
    /// Finds out.
    pub(crate) run: Box<dyn Fn() -> anyhow::Result<()> + Send>,
}

impl Scenario {
    pub(crate) fn new(name: &str, run: fn() -> anyhow::Result<()>) -> Self {
        Self { name: name.to_owned(), needs: Vec::new(), run: Box::new(run) }
    }

    pub(crate) fn needing(name: &str, needs: &[Need], run: fn() -> anyhow::Result<()>) -> Self {
        Self { needs: needs.to_vec(), ..Self::new(name, run) }
    }
}

fn main() -> ExitCode {
    capture::serve_if_asked();
    gateways::act_if_asked();
    raise_descriptor_limit();
    let mut arguments = Arguments::from_args();
    // Each scenario wants the machine to itself: it counts what the kernel did.
    arguments.test_threads.get_or_insert(1);
    let no_skip = |name, value| std::env::var(name).is_ok_and(|set| set == value);
    let no_skip = no_skip("CI", "true") || no_skip("S3AUDITD_NO_SKIP", "1");
    let parts = [
        capture::scenarios(),
        start::scenarios(),
        gateways::scenarios(),
        clients::scenarios(),
        wire::scenarios(),
        bodies::scenarios(),
        unseen::scenarios(),
        delivery::scenarios(),
        kernel::scenarios(),
        leftovers::scenarios(),
        record::scenarios(),
        load::scenarios(),
        boringssl::scenarios(),
        openssl::scenarios(),
        openssl_inside::scenarios(),
        oracle::scenarios(),
        secrets::scenarios(),
        silence::scenarios(),
        tls::scenarios(),
        tls_go::scenarios(),
        tls_load::scenarios(),
        tls_elsewhere::scenarios(),
    ];
    let trials = parts.into_iter().flatten().map(|scenario| trial(scenario, no_skip)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(scenario: Scenario, no_skip: bool) -> Trial {
    let Scenario { name, needs, run } = scenario;
    let missing = std::iter::once(Need::Daemon).chain(needs).find_map(|need| need.check().err());
    match missing {
        None => Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}")))),
        Some(missing) if no_skip && missing.is_failure() => Trial::test(name, move || {
            Err(Failed::from(format!("cannot run, and skipping is off: {}", missing.reason())))
        }),
        Some(missing) => {
            eprintln!("{name} is ignored: {}", missing.reason());
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        }
    }
}

/// A thousand connections have two ends in this process.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is not allowed, the scenario that opens them says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
