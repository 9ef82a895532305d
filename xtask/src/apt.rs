//! Debian packages of other releases than this machine's, without touching its apt or its packages.
//!
//! An [`Apt`] has sources, lists and downloads of its own in a temporary folder. Mirrors and proxies are those of the
//! machine's configuration, read when it runs; signatures are checked with the machine's keyrings.

use crate::process::{command, output, succeed};
use anyhow::{Context as _, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What counts as installed already.
#[derive(Clone, Copy)]
pub(crate) enum Installed {
    /// Nothing: packages are for another system.
    Nothing,
    /// What this machine has: packages are to run here.
    ThisMachine,
}

/// See the module.
pub(crate) struct Apt {
    home: PathBuf,
}

impl Drop for Apt {
    fn drop(&mut self) {
        // A temporary folder that stays is only untidy.
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Apt {
    /// With the newest lists of these suites, of packages for that architecture, and preferences as in
    /// apt_preferences(5).
    pub(crate) fn open(
        suites: &[&str],
        architecture: &str,
        preferences: &str,
        installed: Installed,
    ) -> anyhow::Result<Self> {
        let archives = Archives::of_this_machine()?;
        let suite = suites.first().unwrap_or(&"none");
        let name = format!("s3auditd-apt-{}-{architecture}-{suite}", std::process::id());
        let apt = Self { home: std::env::temp_dir().join(name) };
        let home = &apt.home;
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(folder)).with_context(|| format!("creating {}", home.display()))?;
        }
        let mut sources = String::new();
        for suite in suites {
            sources.push_str(&archives.line(suite)?);
        }
        fs::write(home.join("sources.list"), sources)?;
        fs::write(home.join("preferences"), preferences)?;
        fs::write(home.join("status"), "")?;
        let status = match installed {
            Installed::Nothing => home.join("status"),
            Installed::ThisMachine => PathBuf::from("/var/lib/dpkg/status"),
        };
        let place = home.display();
        // Read after the machine's own configuration, so it wins; hooks of the machine are for the machine's state.
        let configuration = format!(
            r#"
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "true";
Dir::State "{place}/state";
Dir::State::status "{}";
Dir::Cache "{place}/cache";
Dir::Etc::SourceList "{place}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "{place}/preferences";
Dir::Etc::PreferencesParts "/dev/null";
"#,
            status.display()
        );
        fs::write(home.join("apt.conf"), configuration)?;
        succeed(apt.command("apt-get").args(["--quiet=2", "update"])).with_context(|| {
            format!("no lists of {}: where a key is missing, so is that suite's keyring", suites.join(", "))
        })?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command(program);
        command.arg("-c").arg(self.home.join("apt.conf")).current_dir(&self.home);
        command
    }

    /// Every package that begins so.
    pub(crate) fn names(&self, beginning: &str) -> anyhow::Result<Vec<String>> {
        let names = output(self.command("apt-cache").args(["pkgnames", beginning])).context("apt-cache pkgnames")?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Unpacks one package, without what it depends on.
    pub(crate) fn unpack(&self, package: &str, into: &Path) -> anyhow::Result<()> {
        succeed(self.command("apt-get").args(["--quiet=2", "download", package]))?;
        self.unpack_all(&self.home, into)
    }

    /// Unpacks a package and whatever it needs that is not installed.
    pub(crate) fn unpack_with_dependencies(&self, package: &str, into: &Path) -> anyhow::Result<()> {
        succeed(self.command("apt-get").args(["--quiet=2", "--yes", "--download-only", "install", package]))?;
        self.unpack_all(&self.home.join("cache/archives"), into)
    }

    fn unpack_all(&self, from: &Path, into: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(into)?;
        for entry in fs::read_dir(from)? {
            let package = entry?.path();
            if package.extension().is_some_and(|extension| extension == "deb") {
                succeed(command("dpkg-deb").arg("--extract").arg(&package).arg(into))?;
                fs::remove_file(&package)?;
            }
        }
        Ok(())
    }
}

/// A folder with packages of this machine's release and what they need, unpacked and not installed. Put together aside and
/// moved into place, so that an interrupted one does not look whole.
pub(crate) fn unpacked(place: &Path, packages: &[&str]) -> anyhow::Result<()> {
    if place.exists() {
        return Ok(());
    }
    eprintln!("unpacking {}", packages.join(", "));
    let (main, security) = (codename()?, format!("{}-security", codename()?));
    let apt = Apt::open(&[&main, &security], "amd64", "", Installed::ThisMachine)?;
    let aside = place.with_extension(std::process::id().to_string());
    fs::create_dir_all(&aside)?;
    for package in packages {
        // What is installed already is not fetched; whoever runs it finds it in its place.
        apt.unpack_with_dependencies(package, &aside)?;
    }
    fs::rename(&aside, place).with_context(|| format!("moving the packages to {}", place.display()))
}

/// This machine's release, as its suites are named.
pub(crate) fn codename() -> anyhow::Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release has no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

/// Where this machine has its Debian packages from.
struct Archives {
    main: Source,
    security: Source,
}

impl Archives {
    fn of_this_machine() -> anyhow::Result<Self> {
        let (codename, sources) = (codename()?, configured()?);
        let having = |suite: String| {
            let source = sources.iter().find(|source| source.suites.contains(&suite)).cloned();
            source.with_context(|| format!("no source in /etc/apt has the suite {suite}"))
        };
        Ok(Self { main: having(codename.clone())?, security: having(format!("{codename}-security"))? })
    }

    /// A line of sources.list for that suite; only the lists of packages.
    fn line(&self, suite: &str) -> anyhow::Result<String> {
        let Source { uri, signed_by, .. } = if suite.ends_with("-security") { &self.security } else { &self.main };
        let keys = signed_by.as_ref().map(|keys| format!(" signed-by={keys}")).unwrap_or_default();
        Ok(format!("deb [targets=Packages{keys}] {uri} {suite} main\n"))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    signed_by: Option<String>,
}

fn configured() -> anyhow::Result<Vec<Source>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            Some("sources") => sources.extend(stanzas(&text)),
            _ => {}
        }
    }
    if sources.is_empty() {
        bail!("no source of Debian packages in /etc/apt: this needs a Debian machine");
    }
    Ok(sources)
}

/// The one-line style of sources.list(5).
fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned);
    Some(Source { uri: words.next()?, suites: vec![words.next()?], signed_by })
}

/// The style of deb822, without keys that stand in the file itself.
fn stanzas(text: &str) -> Vec<Source> {
    let text: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    text.split(|line| line.trim().is_empty())
        .filter_map(|stanza| {
            let field = |name: &str| {
                stanza.iter().find_map(|line| {
                    let (field, value) = line.split_once(':')?;
                    field.eq_ignore_ascii_case(name).then(|| value.trim())
                })
            };
            let on = field("Enabled").is_none_or(|value| value != "no");
            let binary = field("Types")?.split_whitespace().any(|kind| kind == "deb");
            let signed_by = field("Signed-By").filter(|keys| keys.starts_with('/')).map(str::to_owned);
            (on && binary).then_some(Source {
                uri: field("URIs")?.split_whitespace().next()?.to_owned(),
                suites: field("Suites")?.split_whitespace().map(str::to_owned).collect(),
                signed_by,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, suites: &[&str], signed_by: Option<&str>) -> Source {
        let suites = suites.iter().map(|suite| (*suite).to_owned()).collect();
        Source { uri: uri.to_owned(), suites, signed_by: signed_by.map(str::to_owned) }
    }

    #[test]
    fn both_styles_of_sources_are_read() {
        let lines = "# deb file:/x old main\ndeb file:/a one main contrib\ndeb-src file:/a one main\n\
                     deb [arch=amd64 signed-by=/k.gpg] file:/b two main";
        let read: Vec<_> = lines.lines().filter_map(one_line).collect();
        assert_eq!(read, [source("file:/a", &["one"], None), source("file:/b", &["two"], Some("/k.gpg"))]);

        let text = "Types: deb\n# a comment\nURIs: file:/a file:/mirror\nSuites: one one-updates\nSigned-By: /k.gpg\n\n\
                    Types: deb-src\nURIs: file:/s\nSuites: one\n\nTypes: deb\nURIs: file:/n\nSuites: one\nEnabled: no\n";
        assert_eq!(stanzas(text), [source("file:/a", &["one", "one-updates"], Some("/k.gpg"))]);
    }
}
