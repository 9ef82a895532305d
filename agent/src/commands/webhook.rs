//! `s3auditd webhook`: changes the running daemon's webhook.

use crate::{Failure, current_thread, print, usage};
use clap::Subcommand;
use s3auditd::config::keys::Flags;
use s3auditd::config::token::Secret;
use s3auditd::config::{self, FileChoice};
use s3auditd::control::{self, Reply, Request, managed::Webhook};
use s3auditd::exit::Exit;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum WebhookCommand {
    /// Sends the records there from now on.
    Enable {
        /// URL of the webhook.
        #[arg(long, value_name = "URL")]
        endpoint: String,
        /// Value of the Authorization header. It shows in the process list: prefer --auth-token-file.
        #[arg(long, value_name = "TOKEN", conflicts_with = "auth_token_file")]
        auth_token: Option<String>,
        /// File with the value of the Authorization header, as the daemon finds it.
        #[arg(long, value_name = "FILE")]
        auth_token_file: Option<PathBuf>,
        /// How a request carries records: ndjson, hec-event, hec-raw or auto.
        #[arg(long, value_name = "FORMAT")]
        format: Option<String>,
        /// Try it first, and change nothing if it does not answer.
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        daemon: DaemonSocket,
    },
    /// Sends nothing any more; records wait in the spool.
    Disable(DaemonSocket),
    /// Shows how the webhook stands.
    Show(DaemonSocket),
}

#[derive(clap::Args)]
pub(crate) struct DaemonSocket {
    /// Where the daemon listens.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    control_socket: Option<String>,
    /// The daemon's configuration file, to learn where it listens.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(command: WebhookCommand) -> Result<(), Failure> {
    let (request, daemon) = match command {
        WebhookCommand::Enable { endpoint, auth_token, auth_token_file, format, verify, daemon } => {
            let auth_token = auth_token.map(Secret::new);
            // The daemon may stand in another folder.
            let auth_token_file = auth_token_file.map(std::path::absolute).transpose();
            let auth_token_file = auth_token_file.map_err(|error| Failure(Exit::Usage, error.to_string()))?;
            let webhook = Webhook { endpoint, auth_token, auth_token_file, format };
            (Request::Enable { webhook, verify }, daemon)
        }
        WebhookCommand::Disable(daemon) => (Request::Disable, daemon),
        WebhookCommand::Show(daemon) => (Request::Show, daemon),
    };
    let file = FileChoice::unless(daemon.control_socket.is_some(), daemon.config);
    let flags = Flags { control_socket: daemon.control_socket, ..Flags::default() };
    let config = config::load(&file, flags, &config::environment()).map_err(usage)?.config;
    let Some(path) = config.control_socket else {
        return Err(Failure(Exit::NoDaemon, "control-socket is off: the daemon takes no commands".to_owned()));
    };
    let reply = current_thread()?.block_on(control::ask(&path, &request));
    match reply.map_err(|error| Failure(Exit::NoDaemon, error.to_string()))? {
        Reply::Done(text) => print(&format!("{}\n", text.trim_end())),
        Reply::Refused(why) => Err(Failure(Exit::Usage, why)),
    }
}
