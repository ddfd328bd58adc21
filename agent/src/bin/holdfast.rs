//! The CLI; all of it lives in [`holdfast_agent::cli`].

fn main() -> std::process::ExitCode {
    holdfast_agent::cli::main()
}
