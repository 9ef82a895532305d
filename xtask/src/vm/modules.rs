//! The modules that guests load: kernel TLS, which Debian builds as one, and the cipher that its scenario uses.
//!
//! They are kept decompressed beside the kernel's image, with a file that names them in the order in which they can be
//! loaded. `tests/src/bin/guest_init.rs` loads those of its own release.

use crate::process::{command, line};
use anyhow::{Context as _, ensure};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Without it the others are of no use: a kernel that has none gets no module.
const FIRST: &str = "tls";
/// What AES-GCM is made of. The kernel asks for these parts by name when it builds the cipher, so they stand in no
/// module's dependencies. What of them is not there is built in.
const PARTS: [&str; 3] = ["ctr", "ghash_generic", "gcm"];

/// Names the modules, a line each.
const ORDER: &str = "order";

/// Whether a folder has all that belongs in it.
pub(super) fn whole(folder: &Path) -> bool {
    folder.join(ORDER).exists()
}

/// Takes what is needed of an unpacked `lib/modules/RELEASE`.
pub(super) fn keep(unpacked: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into)?;
    let mut taking = Taking { there: HashMap::new(), into, order: Vec::new() };
    find(unpacked, &mut taking.there).with_context(|| format!("looking for modules in {}", unpacked.display()))?;
    ensure!(!taking.there.is_empty(), "no modules in {}", unpacked.display());
    if taking.there.contains_key(FIRST) {
        for name in PARTS.into_iter().chain([FIRST]) {
            taking.take(name)?;
        }
    }
    // Last: an interrupted run leaves nothing that looks whole.
    Ok(fs::write(into.join(ORDER), taking.order.join("\n"))?)
}

/// Each file of a folder that [`keep`] made.
pub(super) fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let order = fs::read_to_string(folder.join(ORDER)).with_context(|| folder.display().to_string())?;
    Ok(order.lines().chain([ORDER]).map(|name| folder.join(name)).collect())
}

struct Taking<'a> {
    /// Every module of the package, by name.
    there: HashMap<String, PathBuf>,
    into: &'a Path,
    /// Taken already.
    order: Vec<String>,
}

impl Taking<'_> {
    /// What it needs first.
    fn take(&mut self, name: &str) -> anyhow::Result<()> {
        let file = format!("{name}.ko");
        let Some(place) = self.there.get(name).filter(|_| !self.order.contains(&file)) else { return Ok(()) };
        let module = decompressed(place)?;
        for needed in needs(&module) {
            self.take(&needed)?;
        }
        fs::write(self.into.join(&file), module)?;
        self.order.push(file);
        Ok(())
    }
}

fn find(folder: &Path, there: &mut HashMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), there)?;
        } else if let Some((name, _)) = entry.file_name().to_str().and_then(|name| name.split_once(".ko")) {
            there.insert(named(name), entry.path());
        }
    }
    Ok(())
}

/// Files and the kernel do not agree on the dash.
fn named(name: &str) -> String {
    name.replace('-', "_")
}

fn decompressed(place: &Path) -> anyhow::Result<Vec<u8>> {
    if place.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(place)?);
    }
    let mut xz = command("xz");
    let output = xz.args(["--decompress", "--stdout"]).arg(place).output();
    let output = output.context("modules of kernels are compressed: this needs xz (Debian: xz-utils)")?;
    ensure!(output.status.success(), "{} failed: {}", line(&xz), String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// The modules whose symbols it uses, as its section `.modinfo` tells: `depends=one,two` between two zeroes. (The package
/// has no `modules.dep`: that one is made when it is installed.)
fn needs(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|bytes| bytes == FIELD) else { return Vec::new() };
    let value = module.iter().skip(at + FIELD.len()).take_while(|byte| **byte != 0).copied().collect();
    let value = String::from_utf8(value).unwrap_or_default();
    value.split(',').filter(|name| !name.is_empty()).map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_taken_first() -> anyhow::Result<()> {
        let home = std::env::temp_dir().join(format!("s3auditd-modules-{}", std::process::id()));
        let (from, into) = (home.join("from"), home.join("into"));
        let module = |place: &str, depends: &str| {
            let place = from.join(place);
            fs::create_dir_all(place.parent().unwrap_or(&from))?;
            fs::write(place, format!("\x7fELF\0license=GPL\0depends={depends}\0name=x\0"))
        };
        module("kernel/crypto/gcm.ko", "crypto-null,not_there")?;
        module("kernel/crypto/crypto_null.ko", "")?;
        module("kernel/crypto/ghash-generic.ko", "gf128mul")?;
        module("kernel/lib/gf128mul.ko", "")?;
        module("kernel/net/other.ko", "")?;
        // The others are for it.
        keep(&from, &into)?;
        assert!(whole(&into));
        assert_eq!(files(&into)?, [into.join(ORDER)]);

        module("kernel/net/tls/tls.ko", "")?;
        keep(&from, &into)?;
        let order = ["gf128mul.ko", "ghash_generic.ko", "crypto_null.ko", "gcm.ko", "tls.ko", ORDER];
        assert_eq!(files(&into)?, order.map(|name| into.join(name)));
        assert_eq!(fs::read(into.join("tls.ko"))?, fs::read(from.join("kernel/net/tls/tls.ko"))?);
        Ok(fs::remove_dir_all(home)?)
    }
}
