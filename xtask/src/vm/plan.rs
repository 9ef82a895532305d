//! What runs where: each backend's scenarios, on each series of kernels that is to run them.

use super::kernel::Series;
use super::processor::Processor;
use anyhow::ensure;

/// One of the daemon's backends, and what is run with it.
pub(super) struct Backend {
    pub(super) name: &'static str,
    /// The series from which on Debian's kernels offer it.
    since: &'static str,
    /// It finds buffers in x86-64 registers.
    reads_registers: bool,
    /// Besides [`ALWAYS`], written alike.
    scenarios: &'static [&'static str],
}

/// Run with every backend: every way to receive and send, byte for byte; a gateway, from its sockets to the webhook; and
/// a socket that the kernel itself reads and writes.
///
/// `SERIES/NAME` is for that series alone; `SERIES+/NAME` from that series on, because Debian builds what it is about into
/// its kernels only from there on.
const ALWAYS: &[&str] = &[
    "capture::each_way_to_receive_and_send_is_byte_exact",
    "kernel::a_gateway_is_audited_and_the_ledger_balances",
    "6.1+/capture::kernel_tls_is_named_and_gives_no_byte",
];

/// Of foreign programs scenarios need nginx at most. What does not depend on the backend is run with one of them.
pub(super) const BACKENDS: &[Backend] = &[
    Backend {
        name: "socket-tracepoints",
        since: "6.12",
        reads_registers: true,
        scenarios: &[
            "capture::each_way_is_byte_exact_over_ipv6",
            "capture::many_connections_on_all_cpus_are_byte_exact",
            "7.2/capture::threads_that_preempt_each_other_are_byte_exact",
            "7.2/capture::plaintext_of_threads_that_preempt_each_other_is_byte_exact",
            "7.2/capture::a_cpu_that_comes_online_later_is_captured",
            "7.2/capture::a_cpu_that_was_away_is_captured_again",
            "7.2/kernel::a_gateway_behind_openssl_is_audited_and_the_ledger_balances",
            "unseen::io_uring_never_shows_another_calls_buffer",
        ],
    },
    Backend {
        name: "fexit",
        since: "5.10",
        reads_registers: false,
        scenarios: &[
            "6.12-preempt/capture::threads_that_preempt_each_other_are_byte_exact",
            "6.12-preempt/capture::plaintext_of_threads_that_preempt_each_other_is_byte_exact",
            "6.1/capture::plaintext_of_threads_that_preempt_each_other_is_byte_exact",
            "6.12-preempt/capture::a_sockmap_that_redirects_is_named_and_gives_no_byte",
            "6.1/capture::mptcp_is_named_and_gives_no_byte",
            "6.1/kernel::a_gateway_behind_openssl_is_audited_and_the_ledger_balances",
            "6.1+/unseen::kernel_tls_is_said_in_the_coverage_and_the_ledger_balances",
            "unseen::io_uring_never_shows_another_calls_buffer",
        ],
    },
    Backend {
        name: "kprobe",
        since: "5.10",
        reads_registers: false,
        scenarios: &[
            "capture::calls_without_room_for_a_note_are_counted",
            "capture::missed_returns_are_counted_and_leave_nothing",
            "6.12/kernel::a_gateway_behind_openssl_is_audited_and_the_ledger_balances",
            "6.1/capture::a_sockmap_that_redirects_is_named_and_gives_no_byte",
            "6.1/capture::mptcp_is_named_and_gives_no_byte",
            "6.1/leftovers::nothing_stays_in_the_kernel",
            "7.2/leftovers::nothing_stays_in_the_kernel",
            "unseen::a_body_that_goes_out_by_sendfile",
        ],
    },
    Backend {
        name: "syscall",
        since: "5.10",
        reads_registers: true,
        scenarios: &[
            "wire::a_connection_opened_before_the_daemon",
            "unseen::io_uring_never_shows_another_calls_buffer",
            "6.1+/capture::a_sockmap_that_lets_pass_is_named_and_gives_no_byte",
        ],
    },
];

/// A backend on a series, and what is run there.
pub(super) struct Item {
    pub(super) series: &'static Series,
    pub(super) backend: &'static Backend,
    pub(super) scenarios: Vec<&'static str>,
}

/// What of [`BACKENDS`] runs on these series. `None`: no scenario at all, the backends are only loaded.
pub(super) fn make(
    series: &[&'static Series],
    backends: &[String],
    wanted: Option<&dyn Fn(&str) -> bool>,
) -> anyhow::Result<Vec<Item>> {
    let names: Vec<_> = BACKENDS.iter().map(|backend| backend.name).collect();
    let asked = |backend: &&Backend| backends.is_empty() || backends.iter().any(|name| name == backend.name);
    ensure!(BACKENDS.iter().any(|backend| asked(&backend)), "no such backend; there are: {}", names.join(", "));
    let of_series = |series: &'static Series| {
        let tried = |backend: &&Backend| series.only.is_empty() || series.only.contains(&backend.name);
        BACKENDS.iter().filter(asked).filter(tried).map(move |backend| Item {
            series,
            backend,
            scenarios: wanted.map(|wanted| backend.scenarios_on(series, wanted)).unwrap_or_default(),
        })
    };
    let plan: Vec<_> = series.iter().copied().flat_map(of_series).collect();
    let any = wanted.is_none() || plan.iter().any(|item| !item.scenarios.is_empty());
    ensure!(any, "no scenario for these guests has that in its name");
    Ok(plan)
}

/// The plan as the guests read it: a line each.
pub(super) fn lines(plan: &[Item]) -> String {
    let line = |item: &Item| [&[item.series.name, item.backend.name], item.scenarios.as_slice()].concat().join(" ");
    plan.iter().map(line).collect::<Vec<_>>().join("\n")
}

impl Item {
    /// Whether the kernel should let the backend run.
    pub(super) fn is_offered(&self) -> bool {
        let Backend { since, reads_registers, .. } = self.backend;
        self.series.is_from(since) && (self.series.processor == Processor::Amd64 || !reads_registers)
    }
}

impl Backend {
    fn scenarios_on(&self, series: &Series, wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
        ALWAYS.iter().chain(self.scenarios).filter_map(|entry| on(series, entry)).filter(|name| wanted(name)).collect()
    }
}

/// The scenario's name, if it is for that series.
fn on(series: &Series, entry: &'static str) -> Option<&'static str> {
    let Some((place, name)) = entry.split_once('/') else { return Some(entry) };
    let is_there = place.strip_suffix('+').map_or(place == series.name, |since| series.is_from(since));
    is_there.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernel::ALL;

    #[test]
    fn an_entry_is_for_one_series_or_from_one_on_or_for_all() {
        let on_each = |entry| ALL.iter().filter(move |series| on(series, entry) == Some("a")).map(|series| series.name);
        let all: Vec<_> = ALL.iter().map(|series| series.name).collect();
        assert_eq!(on_each("a").collect::<Vec<_>>(), all);
        assert_eq!(on_each("6.1/a").collect::<Vec<_>>(), ["6.1"]);
        assert_eq!(on_each("6.1+/a").collect::<Vec<_>>(), all[1..]);
    }

    #[test]
    fn every_entry_is_for_some_series() {
        let entries = BACKENDS.iter().flat_map(|backend| ALWAYS.iter().chain(backend.scenarios));
        for entry in entries {
            assert!(ALL.iter().any(|series| on(series, entry).is_some()), "{entry}");
        }
    }

    #[test]
    fn what_nothing_matches_is_an_error() {
        let all: Vec<_> = ALL.iter().collect();
        assert!(make(&all, &["no_such".to_owned()], None).is_err());
        assert!(make(&all, &[], Some(&|_| false)).is_err());
        let plan = make(&all[..1], &["kprobe".to_owned()], Some(&|name| name.contains("by_sendfile"))).unwrap();
        assert_eq!(lines(&plan), "5.10 kprobe unseen::a_body_that_goes_out_by_sendfile");
    }
}
