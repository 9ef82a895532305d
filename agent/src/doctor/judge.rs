//! What the facts mean. Pure: each check is one line with one consequence.

use super::facts::{Facts, Free, Place};
use super::{Check, Report, Verdict};
use crate::exit::Exit;
use Verdict::{Limited, Missing, Ok as Good};

const SYS_ADMIN: u64 = 1 << 21;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_RESOURCE: u64 = 1 << 24;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// Says what follows from what was found.
#[must_use]
pub fn judge(facts: &Facts) -> Report {
    let exit = facts.capture.as_ref().map_or_else(|failed| failed.exit, |_| Exit::Ok);
    let because = match &facts.capture {
        Ok(captured) => format!("by {} ({})", captured.backend, captured.reason),
        Err(failed) => failed.message.clone(),
    };
    let mut checks = vec![kernel(facts), btf(facts)];
    checks.extend(capabilities(facts));
    checks.extend([locked_memory(facts), lockdown(facts), unprivileged_bpf(facts), perf_event_paranoid(facts)]);
    checks.extend(backends(facts));
    checks.extend([rings(facts), memory(facts), grace_periods(facts), cpus(facts)]);
    checks.extend([processes(facts), cgroups(facts), io_uring(facts), ktls(facts)]);
    checks.extend(ports(facts));
    checks.push(spool(facts));
    checks.extend(addresses(facts));
    checks.extend(webhooks(facts));
    Report { works: exit == Exit::Ok, exit_code: exit as u8, because, checks, exit }
}

fn check(name: &str, verdict: Verdict, found: impl Into<String>, consequence: impl Into<String>) -> Check {
    Check { name: name.to_owned(), verdict, found: found.into(), consequence: consequence.into() }
}

fn good(name: &str, found: impl Into<String>) -> Check {
    check(name, Good, found, "")
}

fn kernel(facts: &Facts) -> Check {
    let found = format!("{}, {}", facts.kernel, facts.architecture);
    if facts.architecture == "x86_64" {
        return good("kernel", found);
    }
    check("kernel", Missing, found, "the probes read registers of x86-64 alone: nothing is captured")
}

fn btf(facts: &Facts) -> Check {
    match &facts.btf {
        Ok(bytes) => good("BTF", format!("{bytes} bytes")),
        Err(error) => check(
            "BTF",
            Missing,
            format!("/sys/kernel/btf/vmlinux: {error}"),
            "the kernel's structures are unknown, nothing is captured; it needs CONFIG_DEBUG_INFO_BTF",
        ),
    }
}

fn capabilities(facts: &Facts) -> Vec<Check> {
    let has = |bit| facts.capabilities & (bit | SYS_ADMIN) != 0;
    let by = |bit| if facts.capabilities & bit != 0 { "there" } else { "not there, but CAP_SYS_ADMIN" };
    let needed = |name, bit, consequence| match has(bit) {
        true => good(name, by(bit)),
        false => check(name, Missing, "not there", consequence),
    };
    let ptrace = match facts.capabilities & SYS_PTRACE {
        0 => check(
            "CAP_SYS_PTRACE",
            Limited,
            "not there",
            "listeners in other network namespaces may not be found; what they serve is captured all the same",
        ),
        _ => good("CAP_SYS_PTRACE", "there"),
    };
    vec![
        needed("CAP_BPF", BPF, "no program can be loaded: nothing is captured"),
        needed("CAP_PERFMON", PERFMON, "no program can be attached and no ring be opened: nothing is captured"),
        ptrace,
    ]
}

fn locked_memory(facts: &Facts) -> Check {
    let name = "locked memory";
    let limit = match facts.locked_memory {
        None => return good(name, "RLIMIT_MEMLOCK is unlimited"),
        Some(bytes) => format!("RLIMIT_MEMLOCK is {bytes} bytes"),
    };
    if facts.capabilities & SYS_RESOURCE != 0 {
        return good(name, format!("{limit}, and CAP_SYS_RESOURCE may raise it"));
    }
    match before(&facts.kernel, 5, 11) {
        true => check(
            name,
            Limited,
            limit,
            "maps count against it on this kernel (before 5.11) and may not fit; set LimitMEMLOCK=infinity",
        ),
        false => good(name, format!("{limit}, which this kernel (5.11 or later) does not ask for maps")),
    }
}

/// Whether a release such as `5.10.0-28-amd64` is older.
fn before(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (major, minor)
}

fn lockdown(facts: &Facts) -> Check {
    match facts.lockdown.as_deref() {
        None => good("lockdown", "the kernel does not say (no lockdown, or securityfs is not mounted)"),
        Some(mode @ "confidentiality") => {
            check("lockdown", Missing, mode, "programs may not read the kernel's memory: nothing is captured")
        }
        Some(mode) => good("lockdown", mode),
    }
}

fn unprivileged_bpf(facts: &Facts) -> Check {
    let value = facts.unprivileged_bpf_disabled.map_or_else(|| "not there".to_owned(), |value| value.to_string());
    good("unprivileged_bpf_disabled", format!("{value}; it does not bind who has CAP_BPF"))
}

fn perf_event_paranoid(facts: &Facts) -> Check {
    let value = facts.perf_event_paranoid.map_or_else(|| "not there".to_owned(), |value| value.to_string());
    good("perf_event_paranoid", format!("{value}; it does not bind who has CAP_PERFMON"))
}

fn backends(facts: &Facts) -> Vec<Check> {
    let chosen = facts.capture.as_ref().ok().map(|captured| captured.backend.as_str());
    if facts.backends.is_empty() {
        return vec![check("backends", Missing, "not tried", "see what is missing above")];
    }
    let one = |(name, tried): &(String, Result<(), String>)| {
        let line = format!("backend {name}");
        match tried {
            Ok(()) if chosen == Some(name) => good(&line, "loads and attaches, and is the one that runs"),
            Ok(()) => good(&line, "loads and attaches"),
            // Only one is needed.
            Err(refusal) if chosen.is_some() => check(&line, Limited, refusal, "another one is used"),
            Err(refusal) => check(&line, Missing, refusal, "nothing is captured by it"),
        }
    };
    facts.backends.iter().map(one).collect()
}

fn rings(facts: &Facts) -> Check {
    match &facts.capture {
        Ok(captured) if captured.rings < facts.cpus_online => check(
            "perf rings",
            Limited,
            format!("{} of {} CPUs", captured.rings, facts.cpus_online),
            "what runs on the other CPUs is lost, and counted",
        ),
        Ok(captured) => good("perf rings", format!("{} opened, {} bytes each", captured.rings, facts.ring_bytes)),
        Err(_) => check("perf rings", Missing, "not opened", "capture does not start, see below"),
    }
}

fn memory(facts: &Facts) -> Check {
    let rings = facts.ring_bytes.saturating_mul(facts.cpus_online as u64);
    let Some(available) = facts.available_bytes else {
        return good("memory", format!("{rings} bytes for rings; the kernel does not say what is available"));
    };
    let found = format!("{rings} bytes for rings, {available} available");
    if rings > available {
        return check("memory", Missing, found, "the rings do not fit: lower ring-bytes");
    }
    if rings > available / 4 {
        return check(
            "memory",
            Limited,
            found,
            "the rings take more than a quarter of it: consider a lower ring-bytes",
        );
    }
    good("memory", found)
}

fn grace_periods(facts: &Facts) -> Check {
    if facts.grace_periods {
        return good("membarrier", "there");
    }
    let consequence =
        "a missing sample becomes a loss after one second instead of exactly when it cannot come any more";
    check("membarrier", Limited, "the kernel refuses it (nohz_full)", consequence)
}

fn cpus(facts: &Facts) -> Check {
    let found = format!("{} online, {} possible", facts.cpus_online, facts.cpus_possible);
    if facts.cpus_online < facts.cpus_possible {
        return check("CPUs", Good, found, "one that comes online later gets its ring within a second");
    }
    good("CPUs", found)
}

fn processes(facts: &Facts) -> Check {
    if facts.initial_pid_namespace {
        return good("processes", "all of the node's are seen");
    }
    let consequence = "process.pid of a record is the node's, and listeners of unseen processes are not found; give the agent the host's";
    check("processes", Limited, "a PID namespace of its own", consequence)
}

fn cgroups(facts: &Facts) -> Check {
    let lacking = "records do not say process.cgroup, unit and container";
    match &facts.cgroup2 {
        None => check("cgroup v2", Limited, "not mounted", lacking),
        Some(mount) if !facts.initial_cgroup_namespace || !facts.initial_pid_namespace => {
            check("cgroup v2", Limited, format!("{}, seen from a container", mount.display()), lacking)
        }
        Some(mount) => good("cgroup v2", mount.display().to_string()),
    }
}

fn io_uring(facts: &Facts) -> Check {
    if !facts.io_uring_users.is_empty() {
        let users: Vec<_> = facts.io_uring_users.iter().take(8).map(String::as_str).collect();
        let found = format!("in use by {}", users.join(", "));
        return check(
            "io_uring",
            Limited,
            found,
            "bytes that a gateway moves by it are not seen: its records are partial",
        );
    }
    match facts.io_uring_disabled {
        Some(2) => good("io_uring", "disabled"),
        Some(1) => good("io_uring", "for privileged processes only, and not in use"),
        _ => good("io_uring", "allowed, and not in use"),
    }
}

fn ktls(facts: &Facts) -> Check {
    if facts.ktls {
        let consequence = "bytes of connections that the kernel encrypts are not seen";
        return check("kernel TLS", Limited, "the module is loaded", consequence);
    }
    good("kernel TLS", "not loaded")
}

fn ports(facts: &Facts) -> Vec<Check> {
    if facts.ports.is_empty() {
        return vec![check("ports", Limited, "none configured (--listen)", "`run` needs at least one")];
    }
    let one = |(port, namespaces): &(u16, std::collections::BTreeSet<u64>)| {
        let line = format!("port {port}");
        if namespaces.is_empty() {
            return check(&line, Limited, "nobody listens", "it is waited for");
        }
        let namespaces: Vec<_> = namespaces.iter().map(u64::to_string).collect();
        good(&line, format!("listening in network namespace {}", namespaces.join(", ")))
    };
    facts.ports.iter().map(one).collect()
}

fn spool(facts: &Facts) -> Check {
    let Some(Place { dir, problem, file_system, free_bytes }) = &facts.spool else {
        let consequence = "what is not delivered when the agent ends is lost";
        return check("spool", Limited, "in memory (spool-dir is off, or no webhook is configured)", consequence);
    };
    let found = format!("{} on {file_system}, {free_bytes} bytes free", dir.display());
    if let Some(problem) = problem {
        return check("spool", Missing, found, format!("{problem}; `run` ends with exit code 2"));
    }
    if matches!(file_system.as_str(), "tmpfs" | "ramfs") {
        return check("spool", Limited, found, "records do not outlive a restart of the node");
    }
    if *free_bytes < facts.spool_min_free {
        return check("spool", Limited, found, "less than spool-min-free: batches are dropped, and counted");
    }
    if file_system.starts_with("nfs") || matches!(file_system.as_str(), "cifs" | "smb3") {
        return check("spool", Limited, found, "a spool on a network stands still when the network does");
    }
    good("spool", found)
}

fn addresses(facts: &Facts) -> Vec<Check> {
    let one = |name: &str, address: String, free: &Free| match free {
        Free::Yes => good(name, format!("{address} is free")),
        Free::Ours => good(name, format!("{address}: a running s3auditd answers there")),
        Free::No(why) => check(name, Missing, format!("{address}: {why}"), "`run` ends with exit code 5"),
    };
    let off = |name: &str, consequence: &str| check(name, Good, "off", consequence);
    let metrics = facts.metrics.as_ref().map(|(address, free)| one("metrics", address.to_string(), free));
    let control = facts.control.as_ref().map(|(path, free)| one("control socket", path.display().to_string(), free));
    vec![
        metrics.unwrap_or_else(|| off("metrics", "nobody can ask how the agent is")),
        control.unwrap_or_else(|| off("control socket", "`s3auditd webhook` cannot change anything")),
    ]
}

fn webhooks(facts: &Facts) -> Vec<Check> {
    let one = |(name, proven): &(String, Result<String, String>)| {
        let line = format!("webhook {name}");
        match proven {
            Ok(proven) => good(&line, proven),
            Err(wrong) => check(&line, Missing, wrong, "records wait in the spool until it takes them"),
        }
    };
    facts.webhooks.iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Captured, Failed};
    use super::*;

    /// A node on which everything is as it should be.
    fn healthy() -> Facts {
        let captured = Captured { backend: "socket".to_owned(), reason: "the best".to_owned(), rings: 4 };
        Facts {
            kernel: "6.12.1-amd64".to_owned(),
            architecture: "x86_64",
            btf: Ok(5_000_000),
            capabilities: u64::MAX,
            locked_memory: None,
            lockdown: Some("none".to_owned()),
            unprivileged_bpf_disabled: Some(2),
            perf_event_paranoid: Some(3),
            backends: vec![("socket".to_owned(), Ok(())), ("fexit".to_owned(), Ok(()))],
            capture: Ok(captured),
            grace_periods: true,
            cgroup2: Some("/sys/fs/cgroup".into()),
            initial_pid_namespace: true,
            initial_cgroup_namespace: true,
            io_uring_disabled: Some(0),
            io_uring_users: [].into(),
            ktls: false,
            cpus_online: 4,
            cpus_possible: 4,
            available_bytes: Some(8 << 30),
            ring_bytes: 4 << 20,
            spool: Some(Place {
                dir: "/var/lib/s3auditd/spool".into(),
                problem: None,
                file_system: "xfs".to_owned(),
                free_bytes: 1 << 40,
            }),
            spool_min_free: 256 << 20,
            metrics: Some(("127.0.0.1:9466".parse().unwrap(), Free::Yes)),
            control: Some(("/run/s3auditd.sock".into(), Free::Ours)),
            ports: vec![(9000, [4_026_531_840].into())],
            webhooks: Some(vec![("default".to_owned(), Ok("200 OK: it is there".to_owned()))]),
        }
    }

    /// Everything that is not in order, as `name verdict`.
    fn complaints(facts: &Facts) -> Vec<String> {
        let report = judge(facts);
        let checks = report.checks.iter().filter(|check| check.verdict != Good);
        checks
            .map(|check| {
                assert!(!check.consequence.is_empty(), "{check:?} without a consequence");
                format!("{} {}", check.name, check.verdict.name())
            })
            .collect()
    }

    #[test]
    fn a_healthy_node_has_no_complaints() {
        let report = judge(&healthy());
        assert_eq!(complaints(&healthy()), [] as [&str; 0]);
        assert_eq!((report.works, report.exit_code, report.exit()), (true, 0, Exit::Ok));
        let text = report.render();
        assert!(text.contains("ok      port 9000") && text.contains("capture works here: by socket"), "{text}");
        assert_eq!(text.lines().count(), report.checks.len() + 2);
    }

    #[test]
    fn each_lack_is_one_line_of_its_own() {
        type Change = fn(&mut Facts);
        let cases: [(&str, Change); 21] = [
            ("kernel missing", |f| f.architecture = "aarch64"),
            ("BTF missing", |f| f.btf = Err("no such file".to_owned())),
            ("CAP_BPF missing", |f| f.capabilities &= !(BPF | SYS_ADMIN)),
            ("CAP_PERFMON missing", |f| f.capabilities &= !(PERFMON | SYS_ADMIN)),
            ("CAP_SYS_PTRACE limited", |f| f.capabilities &= !SYS_PTRACE),
            ("locked memory limited", |f| {
                f.kernel = "5.10.0-28-amd64".to_owned();
                f.locked_memory = Some(65_536);
                f.capabilities &= !SYS_RESOURCE;
            }),
            ("lockdown missing", |f| f.lockdown = Some("confidentiality".to_owned())),
            ("backend fexit limited", |f| f.backends[1].1 = Err("EPERM".to_owned())),
            ("perf rings limited", |f| f.capture.as_mut().unwrap().rings = 3),
            ("memory missing", |f| f.available_bytes = Some(1 << 20)),
            ("memory limited", |f| f.available_bytes = Some(20 << 20)),
            ("membarrier limited", |f| f.grace_periods = false),
            ("cgroup v2 limited", |f| f.cgroup2 = None),
            ("io_uring limited", |f| f.io_uring_users.extend(["weka".to_owned()])),
            ("kernel TLS limited", |f| f.ktls = true),
            ("ports limited", |f| f.ports.clear()),
            ("port 9000 limited", |f| f.ports[0].1.clear()),
            ("spool limited", |f| f.spool = None),
            ("spool missing", |f| f.spool.as_mut().unwrap().problem = Some("read-only".to_owned())),
            ("metrics missing", |f| f.metrics.as_mut().unwrap().1 = Free::No("in use".to_owned())),
            ("webhook default missing", |f| f.webhooks.as_mut().unwrap()[0].1 = Err("no connection".to_owned())),
        ];
        for (complaint, change) in cases {
            let mut facts = healthy();
            change(&mut facts);
            assert_eq!(complaints(&facts), [complaint]);
        }
    }

    #[test]
    fn a_container_is_told_what_it_does_not_see() {
        let facts = Facts { initial_pid_namespace: false, ..healthy() };
        assert_eq!(complaints(&facts), ["processes limited", "cgroup v2 limited"]);
    }

    #[test]
    fn what_the_spool_is_on_matters() {
        for (file_system, free_bytes, limited) in
            [("tmpfs", u64::MAX, true), ("nfs4", u64::MAX, true), ("ext4", 1000, true), ("ext4", u64::MAX, false)]
        {
            let mut facts = healthy();
            facts.spool = Some(Place { file_system: file_system.to_owned(), free_bytes, ..facts.spool.unwrap() });
            assert_eq!(!complaints(&facts).is_empty(), limited, "{file_system}");
        }
    }

    #[test]
    fn without_capture_it_ends_as_run_would() {
        let failed = Failed { exit: Exit::Privilege, message: "missing privilege: CAP_BPF".to_owned() };
        let report = judge(&Facts { capture: Err(failed), backends: Vec::new(), capabilities: 0, ..healthy() });
        assert_eq!((report.works, report.exit_code, report.exit()), (false, 3, Exit::Privilege));
        assert!(report.render().ends_with("capture does not work here: missing privilege: CAP_BPF\n"));
    }

    #[test]
    fn releases_are_compared_by_number() {
        assert!(before("5.10.0-28-amd64", 5, 11) && before("4.18.0", 5, 11));
        assert!(!before("5.11.0", 5, 11) && !before("6.1.0", 5, 11) && !before("10.0", 5, 11));
    }
}
