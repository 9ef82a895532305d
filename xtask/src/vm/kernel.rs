//! Debian's cloud kernels: the newest of each series that is supported, kept in the cache.
//!
//! Only the image is kept, and the few modules that a scenario needs ([`modules`]): all else is built into these kernels.

use super::modules;
use super::processor::Processor;
use crate::apt::{Apt, Installed};
use crate::fetch::cache;
use anyhow::Context as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A kernel that is tested, and where Debian has it.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    /// The beginning of its versions.
    pub(super) release: &'static str,
    pub(super) processor: Processor,
    /// The beginning of the package with the image.
    package: &'static str,
    /// The same of that with the modules.
    modules: &'static str,
    suite: &'static str,
    /// The suite moves on: there, whatever is newest from this series on.
    or_later: bool,
    /// Further words for the kernel's command line.
    pub(super) words: &'static str,
    /// The backends that are tried on it; none: all.
    pub(super) only: &'static [&'static str],
}

pub(super) const ALL: [Series; 6] = [
    Series::new("5.10", "linux-image-", "bullseye-security"),
    Series::new("6.1", "linux-image-", "bookworm-security"),
    Series::new("6.12", "linux-image-", "bookworm-security"),
    // The same kernel, preemptible; of the backends it is `fexit` whose programs that touches.
    Series {
        name: "6.12-preempt",
        words: "preempt=full",
        only: &["fexit"],
        ..Series::new("6.12", "linux-image-", "bookworm-security")
    },
    // From 7.2 on `linux-image` has neither image nor modules in it.
    Series { or_later: true, modules: "linux-modules-", ..Series::new("7.2", "linux-binary-", "sid") },
    Series {
        name: "6.12-arm64",
        processor: Processor::Arm64,
        ..Series::new("6.12", "linux-image-", "bookworm-security")
    },
];

/// How long the newest that was found counts as the newest.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// One that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) series: &'static Series,
    pub(super) version: String,
    pub(super) folder: PathBuf,
}

/// Brings the newest of each of these series. Where the mirror cannot be asked, the newest in the cache is taken.
pub(super) fn fetch(wanted: &[&'static Series]) -> anyhow::Result<Vec<Kernel>> {
    let home = cache()?.join("kernels");
    fs::create_dir_all(&home)?;
    let known: Vec<_> = wanted.iter().filter_map(|series| series.newest_cached(&home)).collect();
    let fresh = wanted.iter().all(|series| looked_lately(&home.join(format!("{}.looked", series.name))));
    if fresh && known.len() == wanted.len() {
        return Ok(known);
    }
    match look(wanted, &home) {
        Ok(kernels) => Ok(kernels),
        Err(error) if known.len() == wanted.len() => {
            eprintln!("vm: no newer kernels could be looked for, those in the cache are taken: {error:#}");
            Ok(known)
        }
        Err(error) => Err(error),
    }
}

fn looked_lately(mark: &Path) -> bool {
    let age = fs::metadata(mark).and_then(|mark| mark.modified()).map(|then| SystemTime::now().duration_since(then));
    age.is_ok_and(|age| age.is_ok_and(|age| age < LOOK_AGAIN))
}

fn look(wanted: &[&'static Series], home: &Path) -> anyhow::Result<Vec<Kernel>> {
    let mut kernels = Vec::new();
    for processor in [Processor::Amd64, Processor::Arm64] {
        let wanted: Vec<_> = wanted.iter().copied().filter(|series| series.processor == processor).collect();
        if !wanted.is_empty() {
            kernels.extend(look_for(&wanted, processor, home)?);
        }
    }
    Ok(kernels)
}

fn look_for(wanted: &[&'static Series], processor: Processor, home: &Path) -> anyhow::Result<Vec<Kernel>> {
    let mut suites: Vec<_> = wanted.iter().map(|series| series.suite).collect();
    suites.dedup();
    let apt = Apt::open(&suites, processor.debian(), "", Installed::Nothing).context("looking for kernels")?;
    let flavour = processor.flavour();
    let mut kernels = Vec::new();
    for series in wanted {
        let names = apt.names(series.package)?;
        let versions =
            names.iter().filter_map(|name| name.strip_prefix(series.package)?.strip_suffix(flavour.as_str()));
        let newest = versions.filter(|version| series.has(version)).max_by_key(|version| numbers(version));
        let version = newest.with_context(|| format!("{} has no kernel {}", series.suite, series.name))?;
        let kernel = series.kernel(home, version);
        if !kernel.is_whole() {
            eprintln!("vm: fetching kernel {version}");
            unpack(&apt, &kernel, home)?;
        }
        fs::write(home.join(format!("{}.looked", series.name)), version)?;
        kernels.push(kernel);
    }
    Ok(kernels)
}

/// Aside first, so that an interrupted run leaves nothing that looks whole.
fn unpack(apt: &Apt, kernel: &Kernel, home: &Path) -> anyhow::Result<()> {
    let aside = home.join(format!("{}.{}", kernel.name(), std::process::id()));
    let (series, release) = (kernel.series, kernel.release());
    let mut packages = vec![series.package, series.modules];
    packages.dedup();
    for package in packages {
        apt.unpack(&format!("{package}{release}"), &aside)?;
    }
    let found = |places: &[String]| {
        let place = places.iter().map(|place| aside.join(place)).find(|place| place.exists());
        place.with_context(|| format!("the packages of {release} have none of {}", places.join(", ")))
    };
    let image = found(&[format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")])?;
    let unpacked = found(&[format!("lib/modules/{release}/kernel"), format!("usr/lib/modules/{release}/kernel")])?;
    fs::create_dir_all(&kernel.folder)?;
    modules::keep(&unpacked, &kernel.modules())?;
    fs::rename(image, kernel.image())?;
    fs::remove_dir_all(&aside)?;
    Ok(())
}

impl Kernel {
    /// What tells it from every other, as a file's name.
    pub(super) fn name(&self) -> String {
        // Two of one version differ by their words.
        let words = if self.series.words.is_empty() { String::new() } else { format!("-{}", self.series.name) };
        format!("{}{}{words}", self.version, self.series.processor.suffix())
    }

    /// What `uname -r` says there.
    pub(super) fn release(&self) -> String {
        format!("{}{}", self.version, self.series.processor.flavour())
    }

    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// See [`modules`].
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    fn is_whole(&self) -> bool {
        self.image().exists() && modules::whole(&self.modules())
    }
}

impl Series {
    const fn new(name: &'static str, package: &'static str, suite: &'static str) -> Self {
        Self {
            name,
            release: name,
            processor: Processor::Amd64,
            package,
            modules: package,
            suite,
            or_later: false,
            words: "",
            only: &[],
        }
    }

    /// Whether its versions are that one's or newer.
    pub(super) fn is_from(&self, release: &str) -> bool {
        numbers(self.release) >= numbers(release)
    }

    fn has(&self, version: &str) -> bool {
        let (version, least) = (numbers(version), numbers(self.release));
        // The name of the series alone is that of a package without a kernel.
        version.len() > least.len() && (version.starts_with(&least) || self.or_later && version > least)
    }

    fn kernel(&'static self, home: &Path, version: &str) -> Kernel {
        let folder = home.join(format!("{version}{}", self.processor.flavour()));
        Kernel { series: self, version: version.to_owned(), folder }
    }

    fn newest_cached(&'static self, home: &Path) -> Option<Kernel> {
        let names: Vec<_> = fs::read_dir(home).ok()?.flatten().map(|entry| entry.file_name()).collect();
        let flavour = self.processor.flavour();
        let versions = names.iter().filter_map(|name| name.to_str()?.strip_suffix(flavour.as_str()));
        let newest = versions.filter(|version| self.has(version)).max_by_key(|version| numbers(version))?;
        Some(self.kernel(home, newest)).filter(Kernel::is_whole)
    }
}

/// In the order of which versions and revisions of one series are newer: `6.12.9+deb12` is before `6.12.10+deb12`.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series() {
        let newest = |series: &Series, versions: &[&'static str]| {
            versions.iter().copied().filter(|v| series.has(v)).max_by_key(|v| numbers(v))
        };
        let [_, old, middle, _, last, _] = &ALL;
        assert_eq!(newest(old, &["6.1", "6.1.0-56", "6.1.0-9", "6.1.0-0.deb11.77", "6.12.1+deb12"]), Some("6.1.0-56"));
        assert_eq!(newest(middle, &["6.12.99+deb12", "6.12.117+deb12", "6.1.0-9"]), Some("6.12.117+deb12"));
        assert_eq!(newest(last, &["7.2.13+deb14", "7.3.1+deb14", "7.1.9+deb14"]), Some("7.3.1+deb14"));
        assert_eq!(newest(last, &["7.1.9+deb14"]), None);
    }
}
