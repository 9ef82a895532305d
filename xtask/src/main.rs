//! `cargo xtask`: the one door to building, running and testing s3auditd. One file per command.

mod apt;
mod bench;
mod corpus;
mod fetch;
mod fuzz;
mod peer;
mod process;
mod run;
mod seeds;
mod setup;
mod test;
mod vm;

use clap::{Parser, Subcommand};

/// Builds, runs and tests s3auditd. Every command first brings what it needs (`setup`), so start anywhere.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Brings what the build needs and is missing: rust-src and bpf-linker
    Setup,
    /// Builds the daemon and runs it with privileges; `--demo` shows it at work on a gateway of its own
    Run(run::Args),
    /// Runs all tests: format, lints, unit tests, end to end on this machine's kernel, then on others in guests
    Test(test::Args),
    /// Measures what the probes cost, with and without the daemon
    Bench(bench::Args),
    /// Brings the gateways and clients of the end-to-end tests into a cache outside the checkout
    Fetch,
    /// Feeds arbitrary input to every parser of outside bytes
    Fuzz(fuzz::Args),
    /// Makes the recorded conversations of the tests from a corpus of recorded connections
    Corpus(corpus::Args),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    setup::run()?;
    match cli.command {
        Command::Setup => Ok(()),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fetch => fetch::run().map(|_| ()),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Corpus(args) => corpus::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
