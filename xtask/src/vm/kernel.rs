//! Debian's cloud kernels: the newest of each series that is supported, kept in the cache.
//!
//! Only the image is kept. All that the agent and its tests need is built into these kernels: no module is loaded.

use super::apt::{Apt, Installed};
use crate::fetch::cache;
use anyhow::Context as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A kernel that is tested, and where Debian has it.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// The beginning of the package with the image.
    package: &'static str,
    suite: &'static str,
    /// The suite moves on: there, whatever is newest from this series on.
    or_later: bool,
    /// Further words for the kernel's command line.
    words: &'static str,
    /// The backends that are tried on it; none: all.
    only: &'static [&'static str],
}

/// What most have.
const SERIES: Series = Series { name: "", package: "linux-image-", suite: "", or_later: false, words: "", only: &[] };

pub(super) const ALL: [Series; 5] = [
    Series { name: "5.10", suite: "bullseye-security", ..SERIES },
    Series { name: "6.1", suite: "bookworm-security", ..SERIES },
    Series { name: "6.12", suite: "bookworm-security", ..SERIES },
    // The same kernel, preemptible; of the backends it is `fexit` whose programs that touches.
    Series { name: "6.12-preempt", suite: "bookworm-security", words: "preempt=full", only: &["fexit"], ..SERIES },
    // From 7.2 on `linux-image` has no image in it.
    Series { name: "7.2", package: "linux-binary-", suite: "sid", or_later: true, ..SERIES },
];

const FLAVOUR: &str = "-cloud-amd64";
/// How long the newest that was found counts as the newest.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// One that can be booted.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) series: &'static str,
    pub(super) version: String,
    pub(super) image: PathBuf,
    /// See [`Series`].
    pub(super) words: &'static str,
    /// See [`Series`].
    pub(super) only: &'static [&'static str],
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
    let mut suites: Vec<_> = wanted.iter().map(|series| series.suite).collect();
    suites.dedup();
    let apt = Apt::open(&suites, "", Installed::Nothing).context("looking for kernels")?;
    let mut kernels = Vec::new();
    for series in wanted {
        let names = apt.names(series.package)?;
        let versions = names.iter().filter_map(|name| name.strip_prefix(series.package)?.strip_suffix(FLAVOUR));
        let newest = versions.filter(|version| series.has(version)).max_by_key(|version| numbers(version));
        let version = newest.with_context(|| format!("{} has no kernel {}", series.suite, series.name))?;
        let kernel = series.kernel(home, version);
        if !kernel.image.exists() {
            eprintln!("vm: fetching kernel {version}");
            unpack(&apt, &format!("{}{version}{FLAVOUR}", series.package), &kernel, home)?;
        }
        fs::write(home.join(format!("{}.looked", series.name)), version)?;
        kernels.push(kernel);
    }
    Ok(kernels)
}

/// Aside first, so that an interrupted run leaves nothing that looks whole.
fn unpack(apt: &Apt, package: &str, kernel: &Kernel, home: &Path) -> anyhow::Result<()> {
    let aside = home.join(format!("{}.{}", kernel.version, std::process::id()));
    apt.unpack(package, &aside)?;
    let name = format!("{}{FLAVOUR}", kernel.version);
    let places = [format!("boot/vmlinuz-{name}"), format!("usr/lib/modules/{name}/vmlinuz")];
    let image = places.iter().map(|place| aside.join(place)).find(|place| place.exists());
    let image = image.with_context(|| format!("{package} has no image where it was looked for"))?;
    let folder = kernel.image.parent().context("an image lies in a folder")?;
    fs::create_dir_all(folder)?;
    fs::rename(image, &kernel.image)?;
    fs::remove_dir_all(&aside)?;
    Ok(())
}

impl Series {
    fn has(&self, version: &str) -> bool {
        let (version, least) = (numbers(version), numbers(self.name));
        // The name of the series alone is that of a package without a kernel.
        version.len() > least.len() && (version.starts_with(&least) || self.or_later && version > least)
    }

    fn kernel(&self, home: &Path, version: &str) -> Kernel {
        let image = home.join(format!("{version}{FLAVOUR}")).join("vmlinuz");
        let &Self { name: series, words, only, .. } = self;
        Kernel { series, version: version.to_owned(), image, words, only }
    }

    fn newest_cached(&self, home: &Path) -> Option<Kernel> {
        let names: Vec<_> = fs::read_dir(home).ok()?.flatten().map(|entry| entry.file_name()).collect();
        let versions = names.iter().filter_map(|name| name.to_str()?.strip_suffix(FLAVOUR));
        let newest = versions.filter(|version| self.has(version)).max_by_key(|version| numbers(version))?;
        Some(self.kernel(home, newest)).filter(|kernel| kernel.image.exists())
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
        let [_, old, middle, _, last] = &ALL;
        assert_eq!(newest(old, &["6.1", "6.1.0-56", "6.1.0-9", "6.1.0-0.deb11.77", "6.12.1+deb12"]), Some("6.1.0-56"));
        assert_eq!(newest(middle, &["6.12.99+deb12", "6.12.117+deb12", "6.1.0-9"]), Some("6.12.117+deb12"));
        assert_eq!(newest(last, &["7.2.13+deb14", "7.3.1+deb14", "7.1.9+deb14"]), Some("7.3.1+deb14"));
        assert_eq!(newest(last, &["7.1.9+deb14"]), None);
    }
}
