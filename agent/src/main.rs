//! `s3auditd`: see the README. The exit codes are in `s3auditd::exit`.

mod commands;

use clap::{Parser, Subcommand};
use s3auditd::config::keys::{Config, Flags};
use s3auditd::config::{self, FileChoice, Loaded, Sources};
use s3auditd::exit::Exit;
use s3auditd::replay::{self, ReplayError};
use s3auditd::stream::chain::PublicKey;
use s3auditd::verify::{self, Options};
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
    /// Checks whether a stream of records is whole: nothing edited, and nothing missing that is not explained.
    Verify(VerifyArguments),
    /// Shows what the running daemon says of itself.
    Status(StatusArguments),
    /// Changes the running daemon's webhook, for now and for later starts.
    #[command(subcommand)]
    Webhook(commands::webhook::WebhookCommand),
    /// Looks into the spool, beside a running daemon too.
    #[command(subcommand)]
    Spool(commands::spool::SpoolCommand),
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
struct VerifyArguments {
    /// Files of JSON lines as they were delivered, in order; "-" is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The key that must have signed everything: a file (openssl pkey -pubout), or 32 bytes in base64.
    #[arg(long, value_name = "FILE|BASE64")]
    public_key: Option<String>,
    /// The endpoint that received these lines: what others lost explains nothing then.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// The whole report as JSON.
    #[arg(long)]
    json: bool,
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
        Command::Verify(arguments) => verify_files(arguments),
        Command::Status(arguments) => show_status(arguments),
        Command::Webhook(command) => commands::webhook::run(command),
        Command::Spool(command) => commands::spool::run(command),
        Command::Validate(configuration) => validate(configuration),
        Command::Version => print(&format!("s3auditd {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

fn load(configuration: Configuration) -> Result<Loaded, Failure> {
    sources(configuration).load().map_err(usage)
}

fn sources(configuration: Configuration) -> Sources {
    let file = configuration.config.map_or(FileChoice::Usual, FileChoice::Given);
    Sources { file, flags: configuration.flags, variables: config::environment() }
}

fn log_to_stderr(loaded: &Loaded) {
    // The filter was parsed when the configuration was; standard output belongs to the records.
    let filter = EnvFilter::new(&loaded.config.log);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
}

/// What `run` needs besides a configuration that can be read.
fn check_run(config: &Config) -> Result<(), Failure> {
    config.check_run().map_err(usage)?;
    let token = config.endpoints.iter().try_for_each(|endpoint| endpoint.token.read().map(drop));
    token.map_err(|error| Failure(Exit::Usage, error.to_string()))
}

fn usage(error: config::ConfigError) -> Failure {
    Failure(Exit::Usage, error.to_string())
}

fn run(arguments: RunArguments) -> Result<(), Failure> {
    let sources = sources(arguments.configuration);
    let loaded = sources.load().map_err(usage)?;
    check_run(&loaded.config)?;
    log_to_stderr(&loaded);
    daemon::run(sources, loaded, arguments.record.as_deref()).map_err(|error| Failure(error.exit(), error.to_string()))
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

fn verify_files(arguments: VerifyArguments) -> Result<(), Failure> {
    let usage = |error: &dyn std::error::Error| Failure(Exit::Usage, error.to_string());
    let public_key = arguments.public_key.as_deref().map(PublicKey::read).transpose().map_err(|error| usage(&error))?;
    let options = Options { public_key, endpoint: arguments.endpoint, ..Options::default() };
    let report = verify::verify(options, &arguments.files).map_err(|error| usage(&error))?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure(Exit::Internal, error.to_string()))?;
        print(&format!("{text}\n"))?;
    } else {
        print(&report.render())?;
    }
    if report.whole {
        Ok(())
    } else {
        Err(Failure(Exit::NotWhole, "the audit stream is broken or incomplete".to_owned()))
    }
}

fn validate(configuration: Configuration) -> Result<(), Failure> {
    let Loaded { config, effective, warnings, .. } = load(configuration)?;
    check_run(&config)?;
    for warning in warnings {
        let _gone = writeln!(std::io::stderr(), "s3auditd: {warning}");
    }
    print(&effective)
}

fn show_status(arguments: StatusArguments) -> Result<(), Failure> {
    let file = FileChoice::unless(arguments.metrics_listen.is_some(), arguments.config);
    let flags = Flags { metrics_listen: arguments.metrics_listen, ..Flags::default() };
    let config = config::load(&file, flags, &config::environment()).map_err(usage)?.config;
    let Some(address) = config.metrics_listen else {
        return Err(Failure(Exit::NoDaemon, "metrics-listen is off: the daemon says nothing of itself".to_owned()));
    };
    let status = current_thread()?.block_on(status::fetch(address));
    let status = status.map_err(|error| Failure(Exit::NoDaemon, error.to_string()))?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&status);
        let text = text.map_err(|error| Failure(Exit::Internal, error.to_string()))?;
        return print(&format!("{text}\n"));
    }
    print(&status::render(&status))
}

fn current_thread() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure(Exit::Internal, error.to_string()))
}

/// To standard output, without the panic of `println!` when its reader is gone.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| Failure(Exit::StdoutClosed, format!("standard output: {error}")))
}
