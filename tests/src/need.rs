//! What a scenario needs of the machine. What is missing is said, never guessed around.

use std::path::{Path, PathBuf};

/// A reason not to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It can be brought, or the right to it given.
    Absent(String),
    /// This kernel is built without it: nobody can bring it.
    NotInKernel(String),
}

impl Missing {
    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Absent(reason) | Self::NotInKernel(reason) => reason,
        }
    }

    /// Whether not to run is a failure where skipping is off. What a kernel has none of is none, but in a guest, which is
    /// given only what its kernel has to have.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Absent(_) => true,
            Self::NotInKernel(_) => is_guest(),
        }
    }
}

/// Something that a scenario cannot run without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Root, the kernel's BTF, and the daemon's binary.
    Daemon,
    /// MinIO.
    Minio,
    /// The servers of `tests/gateways/https`.
    GoHttps,
    /// Python, and GnuTLS as a shared library.
    Gnutls,
    /// MinIO's client.
    Mc,
    /// moto.
    Moto,
    /// Python with boto3 and awscli.
    Python,
    /// curl.
    Curl,
    /// nginx.
    Nginx,
    /// haproxy.
    Haproxy,
    /// Envoy.
    Envoy,
    /// Node.
    Node,
    /// s3rver, and Node.
    S3rver,
    /// IPv6 on the loopback interface.
    Ipv6,
    /// io_uring.
    IoUring,
    /// Kernel TLS, loaded or as a module that the kernel loads when it is asked for.
    KernelTls,
    /// Multipath TCP.
    Mptcp,
    /// The right to make a mount namespace, and the commands unshare and setpriv.
    Namespaces,
    /// The right to make a network namespace, and the commands unshare, nsenter and ip.
    NetworkNamespaces,
}

impl Need {
    /// Whether it is there.
    ///
    /// # Errors
    /// What is missing, and how to bring it.
    pub fn check(self) -> Result<(), Missing> {
        match self {
            Self::Daemon => daemon(),
            Self::Minio => tool("S3AUDITD_MINIO").map(drop),
            Self::Gnutls => works("python3", &["-c", "import ctypes; ctypes.CDLL('libgnutls.so.30')"]),
            Self::GoHttps => tool("S3AUDITD_GO_HTTPS").map(drop),
            Self::Mc => tool("S3AUDITD_MC").map(drop),
            Self::Moto => tool("S3AUDITD_MOTO").map(drop),
            Self::Python => tool("S3AUDITD_PYTHON").map(drop),
            Self::Curl => curl(),
            Self::Nginx => server("nginx").map(drop),
            Self::Haproxy => server("haproxy").map(drop),
            Self::Envoy => tool("S3AUDITD_ENVOY").map(drop),
            Self::Node => works("node", &["--version"]),
            Self::S3rver => tool("S3AUDITD_S3RVER").and_then(|_| Self::Node.check()),
            Self::Ipv6 => std::net::TcpListener::bind("[::1]:0").map(drop).map_err(|error| absent("IPv6", &error)),
            Self::Namespaces => works("unshare", &["--mount", "setpriv", "--clear-groups", "true"]),
            Self::NetworkNamespaces => works("unshare", &["--net", "ip", "link", "set", "lo", "up"])
                .and_then(|()| works("nsenter", &["--version"])),
            Self::KernelTls => kernel_tls(),
            Self::Mptcp if Path::new("/proc/sys/net/mptcp/enabled").exists() => Ok(()),
            Self::Mptcp => Err(Missing::NotInKernel("this kernel has no MPTCP (/proc/sys/net/mptcp)".to_owned())),
            Self::IoUring => io_uring::IoUring::new(2).map(drop).map_err(|error| absent("io_uring", &error)),
        }
    }
}

fn absent(what: &str, why: &dyn std::fmt::Display) -> Missing {
    Missing::Absent(format!("{what} does not work here: {why}"))
}

/// Looked for, not tried: trying loads the module, and a machine is not changed for a scenario that may not be asked for.
fn kernel_tls() -> Result<(), Missing> {
    let read = |place: &str| std::fs::read_to_string(place).unwrap_or_default();
    let loaded = read("/proc/sys/net/ipv4/tcp_available_ulp").split_whitespace().any(|name| name == "tls");
    let release = read("/proc/sys/kernel/osrelease");
    let there = Path::new("/lib/modules").join(release.trim()).join("kernel/net/tls").exists();
    let none = || Missing::NotInKernel(format!("the kernel {} has no TLS, and no module of it", release.trim()));
    if loaded || there { Ok(()) } else { Err(none()) }
}

fn daemon() -> Result<(), Missing> {
    if !rustix::process::geteuid().is_root() {
        return Err(Missing::Absent("loading kernel programs needs root".to_owned()));
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Err(Missing::Absent("the kernel has no BTF (/sys/kernel/btf/vmlinux)".to_owned()));
    }
    tool("S3AUDITD_BIN").map(drop)
}

fn works(program: &str, arguments: &[&str]) -> Result<(), Missing> {
    let mut command = std::process::Command::new(program);
    match command.args(arguments).stdout(std::process::Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(absent(&format!("{program} {}", arguments.join(" ")), &status)),
        Err(error) => Err(absent(program, &error)),
    }
}

fn curl() -> Result<(), Missing> {
    match std::process::Command::new("curl").arg("--version").output() {
        Ok(_) => Ok(()),
        Err(error) => Err(absent("curl", &error)),
    }
}

/// One of Debian's servers, unpacked or installed, and where its libraries are.
///
/// # Errors
/// It is neither.
pub fn server(name: &str) -> Result<(PathBuf, PathBuf), Missing> {
    let root = tool("S3AUDITD_SERVERS")?;
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let places = [root, PathBuf::from("/")].map(|root| root.join("usr/sbin").join(name));
    let binary = places.into_iter().find(|place| place.exists());
    let binary = binary.ok_or_else(|| Missing::Absent(format!("there is no {name}: see `cargo xtask fetch`")))?;
    Ok((binary, libraries))
}

/// The name of the series that a guest runs; elsewhere it is not set.
pub const GUEST: &str = "S3AUDITD_GUEST";

/// Whether this machine is a guest that was started for the suite: nobody else uses it.
#[must_use]
pub fn is_guest() -> bool {
    std::env::var_os(GUEST).is_some()
}

/// The path in an environment variable that `cargo xtask test` sets.
///
/// # Errors
/// It is not set, or leads nowhere.
pub fn tool(variable: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    let path = path.ok_or_else(|| Missing::Absent(format!("{variable} is not set: run through `cargo xtask test`")))?;
    if path.exists() { Ok(path) } else { Err(Missing::Absent(format!("{variable} leads nowhere: {}", path.display()))) }
}
