//! Everything that is done with this repository: set up, build, check, test, run, measure.
//!
//! `main` parses the command and ends in one `match`; each command is a module. Exits 0, 1, 64 for
//! a usage error and 78 when this machine is unfit and xtask will not change that by itself.

mod bench;
mod build;
mod check;
mod console;
mod ebpf;
mod run;
mod setup;
mod shell;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::setup::Need;
use crate::shell::Unfit;
use crate::test::outcome::Reported;

/// The command line.
#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set up, build, check, test and run Holdfast", version)]
struct Cli {
    /// Install missing packages without asking (CI=true does the same).
    #[arg(long, short, global = true)]
    yes: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing for building, testing and running.
    Setup,
    /// Build the eBPF object alone.
    Ebpf,
    /// Build the manager's web page alone.
    Console,
    /// Build holdfastd, holdfast and holdfast-scan into target/release.
    Build,
    /// Format, lints, house rules and licences.
    Check,
    /// Unit tests, tests on this host's kernel, tests in virtual machines.
    Test(test::Options),
    /// Protect a file system of our own under target/run, in the foreground.
    Run(run::Options),
    /// The virtual machines alone.
    Vm(vm::Options),
    /// Measure; see `cargo xtask bench --help`.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 64 } else { 0 };
            // A closed terminal is no reason to fail differently.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Reported>() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<Unfit>() { ExitCode::from(78) } else { ExitCode::FAILURE }
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    let root = shell::root();
    let consent = setup::Consent::new(cli.yes);
    match cli.command {
        Command::Setup => setup::ensure(
            &root,
            &[Need::Build, Need::Console, Need::Check, Need::Test, Need::Run],
            consent,
        ),
        Command::Ebpf => {
            setup::ensure(&root, &[Need::Build], consent)?;
            build::object(&root)
        }
        Command::Console => {
            setup::ensure(&root, &[Need::Console], consent)?;
            build::console(&root)
        }
        Command::Build => {
            setup::ensure(&root, &[Need::Build, Need::Console], consent)?;
            build::all(&root)
        }
        Command::Check => {
            setup::ensure(&root, &[Need::Build, Need::Console, Need::Check], consent)?;
            check::all(&root)
        }
        Command::Test(options) => {
            setup::ensure(&root, &[Need::Build, Need::Console, Need::Test, Need::Run], consent)?;
            build::all(&root)?;
            test::all(&root, &options)
        }
        Command::Run(options) => {
            if !options.inside_sudo() {
                setup::ensure(&root, &[Need::Build, Need::Console, Need::Run], consent)?;
                build::all(&root)?;
            }
            run::foreground(&root, &options)
        }
        Command::Vm(options) => {
            setup::ensure(&root, &[Need::Build, Need::Console, Need::Test, Need::Run], consent)?;
            build::all(&root)?;
            vm::alone(&root, &options)
        }
        Command::Bench(options) => {
            setup::ensure(&root, &[Need::Build, Need::Console, Need::Test], consent)?;
            build::all(&root)?;
            bench::run(&root, &options)
        }
    }
}
