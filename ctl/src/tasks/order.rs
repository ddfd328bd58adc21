//! What can be ordered of a host, as words on a command line and as the manager's JSON.

use std::path::PathBuf;

use clap::Subcommand;
use holdfast_common::denial::DenialKind;
use holdfast_common::process::ProcessKey;
use holdfast_common::scans::ScanScope;
use holdfast_common::task::Action;
use serde_json::Value;

use crate::CtlError;
use crate::pages::{id, span_s};

/// An order.
#[derive(Debug, Subcommand)]
pub(crate) enum Order {
    /// Cut the host off from the network, but for its manager.
    Isolate {
        /// Release by itself after this: 30m, 2h, 3d.
        #[arg(long = "for", value_name = "TIME")]
        limit: Option<String>,
    },
    /// Let an isolated host go.
    Release,
    /// Scan files and folders, the usual hiding places, or all local file systems.
    Scan {
        /// Absolute paths.
        #[arg(required_unless_present_any = ["quick", "full"], value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// What runs, what starts by itself, and where downloads land.
        #[arg(long, conflicts_with_all = ["paths", "full"])]
        quick: bool,
        /// Every local file system.
        #[arg(long, conflicts_with = "paths")]
        full: bool,
        /// Percent of one core, 1 to 100; else what the host's config says.
        #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
        cpu_share: Option<u8>,
    },
    /// Put a quarantined file back.
    Restore {
        /// The item's id.
        item: String,
        /// Allow its content from now on.
        #[arg(long)]
        allow: bool,
        /// Allow it no longer than this (90s, 10m, 2h, 1d).
        #[arg(long = "for", value_name = "TIME", requires = "allow")]
        limit: Option<String>,
    },
    /// Destroy a quarantined item.
    Delete {
        /// The item's id.
        item: String,
    },
    /// Deliver a quarantined item as an AES zip.
    Download {
        /// The item's id.
        item: String,
        /// The zip's password; the default is the convention among analysts.
        #[arg(long, env = "HOLDFAST_ZIP_PASSWORD", hide_env_values = true)]
        #[arg(default_value = "infected")]
        password: String,
    },
    /// Deliver a file as an AES zip.
    Collect {
        /// An absolute path.
        path: PathBuf,
        /// The zip's password; the default is the convention among analysts.
        #[arg(long, env = "HOLDFAST_ZIP_PASSWORD", hide_env_values = true)]
        #[arg(default_value = "infected")]
        password: String,
        /// Refuse larger files, MiB.
        #[arg(long, value_name = "MIB", default_value_t = 100)]
        limit: u64,
    },
    /// Kill a process.
    Kill {
        /// Its pid and start time, as process-list and events have it: 4711:123456789
        #[arg(value_name = "PID:START")]
        process: String,
    },
    /// Deny content by its SHA-256 from now on.
    DenyHash {
        /// In hex.
        sha256: String,
        /// Until it ends by itself: 30m, 2h, 3d.
        #[arg(long = "for", value_name = "TIME")]
        limit: Option<String>,
    },
    /// Deny what lies at a path of the host. For the whole fleet: `denials add`.
    DenyPath {
        /// Absolute; * stays in one folder, ** does not.
        path: String,
        /// Until it ends by itself: 30m, 2h, 3d.
        #[arg(long = "for", value_name = "TIME")]
        limit: Option<String>,
    },
    /// Deny it no more, where the host alone denies it.
    Undeny {
        /// hash or path.
        #[arg(value_parser = ["hash", "path"])]
        kind: String,
        /// As it was denied.
        value: String,
    },
    /// Run a detection model's simulation.
    Simulate {
        /// Its name, as holdfast simulate list has it.
        simulation: String,
    },
    /// All processes.
    ProcessList,
    /// What a person needs to help, as a zip.
    Diagnostics,
    /// Any action, as the manager's JSON.
    Raw {
        /// E.g. {"action":"release"}
        action: String,
    },
}

impl Order {
    /// As the manager takes it.
    pub(crate) fn action(self) -> Result<Value, CtlError> {
        let action = match self {
            Self::Isolate { limit } => {
                let duration_s = limit.map(|limit| span_s("--for", &limit)).transpose()?;
                Action::Isolate { duration_s }
            }
            Self::Release => Action::Release,
            Self::Scan { paths, quick, full, cpu_share } => {
                let scope = match (quick, full) {
                    (true, _) => ScanScope::Quick,
                    (false, true) => ScanScope::Full,
                    (false, false) => ScanScope::Paths,
                };
                Action::Scan { scope, paths, cpu_share }
            }
            Self::Restore { item, allow, limit } => {
                let duration_s = limit.map(|limit| span_s("--for", &limit)).transpose()?;
                Action::Restore { item: id("item", &item)?, allow, duration_s }
            }
            Self::Delete { item } => Action::Delete { item: id("item", &item)? },
            Self::Download { item, password } => {
                Action::Download { item: id("item", &item)?, password }
            }
            Self::Collect { path, password, limit } => {
                Action::Collect { path: Some(path), password, limit: limit.saturating_mul(1 << 20) }
            }
            Self::Kill { process } => Action::Kill { process: key(&process)? },
            Self::DenyHash { sha256, limit } => {
                let duration_s = limit.map(|limit| span_s("--for", &limit)).transpose()?;
                Action::DenyHash { sha256, duration_s }
            }
            Self::DenyPath { path, limit } => {
                let duration_s = limit.map(|limit| span_s("--for", &limit)).transpose()?;
                Action::DenyPath { path, duration_s }
            }
            Self::Undeny { kind, value } => {
                let kind = if kind == "hash" { DenialKind::Hash } else { DenialKind::Path };
                Action::Undeny { kind, value }
            }
            Self::Simulate { simulation } => Action::Simulate { simulation },
            Self::ProcessList => Action::ProcessList,
            Self::Diagnostics => Action::Diagnostics,
            Self::Raw { action } => {
                return serde_json::from_str(&action)
                    .map_err(|error| CtlError::Usage(format!("the action: {error}")));
            }
        };
        serde_json::to_value(action).map_err(|error| CtlError::Failed(error.to_string()))
    }
}

fn key(text: &str) -> Result<ProcessKey, CtlError> {
    let parts = text.split_once(':');
    let key = parts.and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse().ok()?)));
    let (pid, start_ns) = key.ok_or_else(|| {
        CtlError::Usage(format!("{text:?} is no PID:START; a bare pid may be another process"))
    })?;
    Ok(ProcessKey { pid, start_ns })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn orders_are_the_managers_actions() {
        let isolate = Order::Isolate { limit: Some("2h".to_owned()) };
        assert_eq!(
            isolate.action().expect("fine"),
            json!({"action": "isolate", "duration_s": 7200})
        );
        let kill = Order::Kill { process: "7:9".to_owned() };
        let wanted = json!({"action": "kill", "process": {"pid": 7, "start_ns": 9}});
        assert_eq!(kill.action().expect("fine"), wanted);
        let scan = |paths: &[&str], quick| Order::Scan {
            paths: paths.iter().map(PathBuf::from).collect(),
            quick,
            full: false,
            cpu_share: None,
        };
        assert_eq!(scan(&[], true).action().expect("fine")["scope"], "quick");
        let paths = scan(&["/srv"], false).action().expect("fine");
        assert_eq!(paths["paths"].as_array().map(Vec::len), Some(1), "{paths}");
        for bad in ["7", "7:", ":9", "-1:9", "a:b", "7:9:1"] {
            assert!(Order::Kill { process: bad.to_owned() }.action().is_err(), "{bad}");
        }
        assert!(Order::Raw { action: "{".to_owned() }.action().is_err());
    }
}
