//! `s3auditd spool`: looks into the spool, beside a running daemon too.

use crate::{Failure, print, usage};
use clap::Subcommand;
use s3auditd::config::keys::Flags;
use s3auditd::config::{self, FileChoice};
use s3auditd::daemon::drain::{self, Drained};
use s3auditd::exit::Exit;
use s3auditd::spool::tool::{self, ToolError};
use std::fs::OpenOptions;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum SpoolCommand {
    /// Shows what is kept, how far delivery is, and what was given up.
    Inspect(InspectArguments),
    /// Writes the records that are kept as JSON lines, byte for byte, and deletes nothing.
    Export(ExportArguments),
    /// Delivers what is kept, without capturing anything; no daemon may run on the spool. Ends when nothing is left.
    Drain(Box<crate::Configuration>),
}

#[derive(clap::Args)]
pub(crate) struct InspectArguments {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: SpoolPlace,
}

#[derive(clap::Args)]
pub(crate) struct ExportArguments {
    /// Only what this reader has not had [default: all that is kept].
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    reader: Option<String>,
    /// All that is kept.
    #[arg(long)]
    all: bool,
    /// Into this new file, for its owner alone, and not to standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: SpoolPlace,
}

#[derive(clap::Args)]
struct SpoolPlace {
    /// The spool's directory.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    spool_dir: Option<String>,
    /// The daemon's configuration file, to learn where the spool is.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(command: SpoolCommand) -> Result<(), Failure> {
    match command {
        SpoolCommand::Inspect(arguments) => inspect_spool(arguments),
        SpoolCommand::Export(arguments) => export_spool(arguments),
        SpoolCommand::Drain(configuration) => drain_spool(*configuration),
    }
}

fn spool_dir(place: SpoolPlace) -> Result<PathBuf, Failure> {
    let file = FileChoice::unless(place.spool_dir.is_some(), place.config);
    let flags = Flags { spool_dir: place.spool_dir, ..Flags::default() };
    let config = config::load(&file, flags, &config::environment()).map_err(usage)?.config;
    config.spool_dir.ok_or_else(|| Failure(Exit::Usage, "spool-dir is off: there is no spool".to_owned()))
}

fn spool_failure(error: ToolError) -> Failure {
    let exit = match error {
        ToolError::Missing(_) | ToolError::NoReader(_) => Exit::Usage,
        ToolError::Write(_) => Exit::StdoutClosed,
        ToolError::Read { .. } => Exit::Internal,
    };
    Failure(exit, error.to_string())
}

fn inspect_spool(arguments: InspectArguments) -> Result<(), Failure> {
    let inspection = tool::inspect(&spool_dir(arguments.place)?).map_err(spool_failure)?;
    if !arguments.json {
        return print(&tool::render(&inspection));
    }
    let text = serde_json::to_string_pretty(&inspection).map_err(|error| Failure(Exit::Internal, error.to_string()))?;
    print(&format!("{text}\n"))
}

fn export_spool(arguments: ExportArguments) -> Result<(), Failure> {
    let dir = spool_dir(arguments.place)?;
    let output: Box<dyn std::io::Write> = match arguments.output {
        None => Box::new(std::io::stdout().lock()),
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            Box::new(file.map_err(|error| Failure(Exit::Usage, format!("{}: {error}", path.display())))?)
        }
    };
    let exported =
        tool::export(&dir, arguments.reader.as_deref(), &mut BufWriter::new(output)).map_err(spool_failure)?;
    let tool::Exported { frames, records, corrupt_frames } = exported;
    let told = format!("s3auditd: {records} records of {frames} frames; {corrupt_frames} frames are damaged");
    let _gone = writeln!(std::io::stderr(), "{told}");
    Ok(())
}

fn drain_spool(configuration: crate::Configuration) -> Result<(), Failure> {
    let sources = crate::sources(configuration);
    let loaded = sources.load().map_err(usage)?;
    crate::log_to_stderr(&loaded);
    let drained = drain::drain(sources, loaded).map_err(|error| Failure(error.exit(), error.to_string()))?;
    let Drained { delivered, filtered, dropped, left } = drained;
    print(&format!("{delivered} delivered, {filtered} left out by filters, {dropped} given up, {left} left\n"))?;
    if left == 0 { Ok(()) } else { Err(Failure(Exit::Undelivered, format!("{left} records are left in the spool"))) }
}
