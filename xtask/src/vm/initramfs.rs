//! What a guest boots into: an archive of files in the kernel's "newc" cpio format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use super::modules;
use super::processor::Processor;
use crate::process::succeed;
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An HTTPS client does not start without the authorities that it trusts, whatever it then talks to.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whom programs may run as; nginx looks itself up.
const USERS: [(&str, &str); 2] =
    [("etc/passwd", "root:x:0:0::/:/\nnobody:x:65534:65534::/:/\n"), ("etc/group", "root:x:0:\nnogroup:x:65534:\n")];

/// Writes an initramfs that holds these programs at its root, by name, with what they need of this machine, a text
/// file, and for each kernel's release its modules (`modules/RELEASE`).
pub(super) fn write(
    place: &Path,
    processor: Processor,
    programs: &[(&str, &Path)],
    text: (&str, &str),
    releases: &BTreeMap<String, PathBuf>,
) -> anyhow::Result<()> {
    let aside = place.with_extension("parts");
    fs::create_dir_all(&aside)?;
    let mut archive = Archive::create(place)?;
    let mut libraries = BTreeSet::new();
    for (name, program) in programs {
        // Without its symbols and debug information, which are most of it.
        let stripped = aside.join(name);
        fs::create_dir_all(stripped.parent().context("a file lies in a folder")?)?;
        succeed(processor.strip().arg("--strip-all").arg("-o").arg(&stripped).arg(program))?;
        archive.add(Path::new(name), PROGRAM, &fs::read(&stripped)?)?;
        libraries.extend(processor.libraries(program));
    }
    libraries.insert((AUTHORITIES.into(), AUTHORITIES.into()));
    for (here, there) in &libraries {
        let bytes = fs::read(here).with_context(|| here.display().to_string())?;
        archive.add(there.strip_prefix("/")?, PROGRAM, &bytes)?;
    }
    for (name, text) in USERS.into_iter().chain([text]) {
        archive.add(Path::new(name), PROGRAM, text.as_bytes())?;
    }
    for (release, folder) in releases {
        for file in modules::files(folder)? {
            let name = file.file_name().context("a file has a name")?;
            archive.add(&Path::new("modules").join(release).join(name), PROGRAM, &fs::read(&file)?)?;
        }
    }
    for folder in ["proc", "sys", "dev", "tmp"] {
        archive.folder(Path::new(folder))?;
    }
    archive.finish()?;
    Ok(fs::remove_dir_all(&aside)?)
}

struct Archive {
    out: BufWriter<File>,
    folders: BTreeSet<PathBuf>,
    entries: u32,
}

impl Archive {
    fn create(place: &Path) -> anyhow::Result<Self> {
        let file = File::create(place).with_context(|| format!("creating {}", place.display()))?;
        Ok(Self { out: BufWriter::new(file), folders: BTreeSet::new(), entries: 0 })
    }

    /// With the folders above it, which must come first.
    fn add(&mut self, name: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        if let Some(parent) = name.parent() {
            self.folder(parent)?;
        }
        self.entry(name, mode, bytes)
    }

    fn folder(&mut self, name: &Path) -> anyhow::Result<()> {
        let Some(parent) = name.parent() else { return Ok(()) };
        if !self.folders.contains(name) {
            self.folder(parent)?;
            self.folders.insert(name.to_owned());
            self.entry(name, FOLDER, &[])?;
        }
        Ok(())
    }

    fn entry(&mut self, name: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        self.entries += 1;
        let name = name.to_str().context("a name that is no UTF-8")?;
        let (size, name_size) = (u32::try_from(bytes.len())?, u32::try_from(name.len() + 1)?);
        // inode, mode, user, group, links, time, size, device, device of a device file, size of the name, no checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let mut header = b"070701".to_vec();
        for field in fields {
            header.extend(format!("{field:08x}").bytes());
        }
        header.extend(name.bytes());
        header.push(0);
        padded(&mut self.out, &header)?;
        padded(&mut self.out, bytes)?;
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.entry(Path::new("TRAILER!!!"), 0, &[])?;
        Ok(self.out.flush()?)
    }
}

/// To a multiple of four.
fn padded(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    let missing = bytes.len().next_multiple_of(4) - bytes.len();
    out.write_all([0; 3].get(..missing).unwrap_or_default())
}
