//! The scan worker's process. Started by the agent only: descriptor 0 is its socket, and the
//! arguments are those of [`holdfast_agent::worker::Limits`].

fn main() -> std::process::ExitCode {
    holdfast_agent::worker::run(std::env::args().skip(1))
}
