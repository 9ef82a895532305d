//! `s3auditd`: see the README. The exit codes are in `s3auditd::exit`.

use clap::{Parser, Subcommand};
use s3auditd::config::keys::Flags;
use s3auditd::config::{self, FileChoice, Loaded};
use s3auditd::exit::Exit;
use s3auditd::replay::{self, ReplayError};
use s3auditd::{daemon, status};
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Audit records of every S3 operation on this node, seen by kernel probes.
#[derive(Parser)]
#[command(name = "s3auditd", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watches the gateway until it is told to stop.
    Run(RunArguments),
    /// Rebuilds records from recorded samples or written conversations, and prints them as JSON lines.
    Replay(ReplayArguments),
    /// Shows what the running daemon says of itself.
    Status(StatusArguments),
    /// Checks the configuration and shows what is in effect, secrets redacted.
    Validate(Configuration),
    /// Shows the version.
    Version,
}

const SAME_NAMES: &str = "Every option is also a key of the file (queue-records = 5) and a variable (S3AUDITD_QUEUE_RECORDS=5); options win \
                          over variables, variables over the file. `s3auditd validate` shows what is in effect, defaults included.";

#[derive(clap::Args)]
#[command(after_help = SAME_NAMES)]
struct Configuration {
    /// Configuration file [default: /etc/s3auditd/s3auditd.toml if it is there; variable: S3AUDITD_CONFIG].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(clap::Args)]
struct RunArguments {
    /// Records scrubbed samples into this new file, for `s3auditd replay`; at most record-bytes.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(clap::Args)]
struct ReplayArguments {
    /// Recordings (`run --record`) or conversations as JSON lines; docs/replay.md has both formats.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(clap::Args)]
struct StatusArguments {
    /// Where the daemon listens.
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    metrics_listen: Option<String>,
    /// The daemon's configuration file, to learn where it listens.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The JSON as the daemon gives it.
    #[arg(long)]
    json: bool,
}

/// What is said on standard error before the process ends.
struct Failure(Exit, String);

fn main() -> ExitCode {
    let exit = match dispatch(Arguments::parse().command) {
        Ok(()) => Exit::Ok,
        Err(Failure(exit, message)) => {
            // With standard error gone there is nobody left to tell.
            let _gone = writeln!(std::io::stderr(), "s3auditd: {message}");
            exit
        }
    };
    exit.into()
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(arguments) => run(arguments),
        Command::Replay(arguments) => replay_files(arguments),
        Command::Status(arguments) => show_status(arguments),
        Command::Validate(configuration) => validate(configuration),
        Command::Version => print(&format!("s3auditd {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

fn load(configuration: Configuration) -> Result<Loaded, Failure> {
    let file = configuration.config.map_or(FileChoice::Usual, FileChoice::Given);
    config::load(&file, configuration.flags, &config::environment()).map_err(usage)
}

fn usage(error: config::ConfigError) -> Failure {
    Failure(Exit::Usage, error.to_string())
}

fn run(arguments: RunArguments) -> Result<(), Failure> {
    let Loaded { config, warnings, .. } = load(arguments.configuration)?;
    config.check_run().map_err(usage)?;
    config.token().read().map_err(|error| Failure(Exit::Usage, error.to_string()))?;
    // The filter was parsed when the configuration was; standard output belongs to the records.
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&config.log)).with_writer(std::io::stderr).init();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    daemon::run(config, arguments.record.as_deref()).map_err(|error| Failure(error.exit(), error.to_string()))
}

fn replay_files(arguments: ReplayArguments) -> Result<(), Failure> {
    let config = load(arguments.configuration)?.config;
    let mut records = BufWriter::new(std::io::stdout().lock());
    let replayed = replay::replay(&config, &arguments.files, &mut records, &mut std::io::stderr().lock());
    // What a bad file told before it went bad is worth having.
    let replayed = replayed.and(records.flush().map_err(ReplayError::Write));
    replayed.map_err(|error| {
        let exit = if matches!(error, ReplayError::Write(_)) { Exit::StdoutClosed } else { Exit::Usage };
        Failure(exit, error.to_string())
    })
}

fn validate(configuration: Configuration) -> Result<(), Failure> {
    let Loaded { config, effective, warnings } = load(configuration)?;
    config.check_run().map_err(usage)?;
    config.token().read().map_err(|error| Failure(Exit::Usage, error.to_string()))?;
    for warning in warnings {
        let _gone = writeln!(std::io::stderr(), "s3auditd: {warning}");
    }
    print(&effective)
}

fn show_status(arguments: StatusArguments) -> Result<(), Failure> {
    // With the address at hand no file is needed, which only root may be able to read.
    let file = match (&arguments.metrics_listen, arguments.config) {
        (Some(_), _) => FileChoice::Skip,
        (None, Some(path)) => FileChoice::Given(path),
        (None, None) => FileChoice::Usual,
    };
    let flags = Flags { metrics_listen: arguments.metrics_listen, ..Flags::default() };
    let config = config::load(&file, flags, &config::environment()).map_err(usage)?.config;
    let Some(address) = config.metrics_listen else {
        return Err(Failure(Exit::NoDaemon, "metrics-listen is off: the daemon says nothing of itself".to_owned()));
    };
    let internal = |error: String| Failure(Exit::Internal, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| internal(error.to_string()))?;
    let status =
        runtime.block_on(status::fetch(address)).map_err(|error| Failure(Exit::NoDaemon, error.to_string()))?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&status).map_err(|error| internal(error.to_string()))?;
        return print(&format!("{text}\n"));
    }
    print(&status::render(&status))
}

/// To standard output, without the panic of `println!` when its reader is gone.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| Failure(Exit::StdoutClosed, format!("standard output: {error}")))
}
