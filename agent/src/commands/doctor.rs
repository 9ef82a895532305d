//! `s3auditd doctor`: what this node offers, what is missing, and what would be lost.

use crate::{Configuration, Failure, current_thread, load, print};
use s3auditd::doctor::{self, facts::Facts};
use s3auditd::exit::Exit;

#[derive(clap::Args)]
pub(crate) struct DoctorArguments {
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// Connect to the webhooks, too; nothing is sent that they could keep.
    #[arg(long)]
    webhook: bool,
    #[command(flatten)]
    configuration: Configuration,
}

pub(crate) fn run(arguments: DoctorArguments) -> Result<(), Failure> {
    let config = load(arguments.configuration)?.config;
    let facts = current_thread()?.block_on(Facts::gather(&config, arguments.webhook));
    let report = doctor::judge(&facts);
    if arguments.json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure(Exit::Internal, error.to_string()))?;
        print(&format!("{text}\n"))?;
    } else {
        print(&report.render())?;
    }
    if report.works { Ok(()) } else { Err(Failure(report.exit(), report.because)) }
}
