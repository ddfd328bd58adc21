//! One test binary of `cargo test`: listed, run, its text read.
//!
//! Invariant: a test in its `--list` that has no result line has failed. Output streams through;
//! only what passing tests wrote is held back, but for their `SKIP` lines.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use super::outcome::{Ending, Outcome};
use crate::shell;

/// Longest time between two lines of a test binary; a test that takes longer hangs.
const SILENCE: Duration = Duration::from_secs(600);

/// One executable.
#[derive(Debug)]
pub(super) struct Binary {
    /// For people: package and target.
    pub(super) name: String,
    pub(super) executable: PathBuf,
    /// Folder of the package, in which cargo runs its tests.
    pub(super) folder: PathBuf,
}

impl Binary {
    /// Run what matches the filter.
    pub(super) fn run(&self, filter: Option<&str>) -> anyhow::Result<Vec<Outcome>> {
        let expected = self.list(filter)?;
        if expected.is_empty() {
            return Ok(Vec::new());
        }
        eprintln!("\n{} ({} tests)", self.name, expected.len());
        let mut child = self
            .command()
            .arg("--show-output")
            .args(filter)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.executable.display()))?;
        let lines = output_lines(&mut child)?;
        let mut report = Report::default();
        let hung = loop {
            match lines.recv_timeout(SILENCE) {
                Ok(line) if report.read(&line) => println!("{line}"),
                Ok(_) => {}
                Err(error) => break error == RecvTimeoutError::Timeout,
            }
        };
        if hung {
            child.kill().context("end a hung test binary")?;
        }
        let status = child.wait().context("wait for a test binary")?;
        let ending = if hung {
            Some(format!("silent for {} s, killed", SILENCE.as_secs()))
        } else {
            (!status.success()).then(|| format!("ended with {status}"))
        };
        Ok(report.judge(&self.name, &expected, ending))
    }

    /// The names of its tests.
    fn list(&self, filter: Option<&str>) -> anyhow::Result<Vec<String>> {
        let text =
            shell::output(self.command().args(["--list", "--format", "terse"]).args(filter))?;
        Ok(text.lines().filter_map(|line| Some(line.strip_suffix(": test")?.to_owned())).collect())
    }

    fn command(&self) -> Command {
        // Marks, mounts and eBPF need root; so do the tests of them.
        let mut command = shell::as_root_with_environment(&self.executable);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}

/// What the documentation's examples did.
pub(super) fn doc_tests(root: &Path, filter: Option<&str>) -> anyhow::Result<Vec<Outcome>> {
    let mut cargo = shell::cargo(root);
    cargo.args(["test", "--quiet", "--release", "--workspace", "--locked", "--doc", "--"]);
    let output =
        cargo.args(["--format", "pretty"]).args(filter).stderr(Stdio::inherit()).output()?;
    let mut report = Report::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        // An empty set of examples is not worth four lines a crate.
        if report.read(line) && line.starts_with("test ") && !line.starts_with("test result") {
            println!("{line}");
        }
    }
    let expected: Vec<String> = report.results.keys().cloned().collect();
    let ending = (!output.status.success()).then(|| format!("ended with {}", output.status));
    Ok(report.judge("doc", &expected, ending))
}

fn output_lines(child: &mut Child) -> anyhow::Result<Receiver<String>> {
    let stdout = child.stdout.take().context("the output is a pipe")?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        while stdout.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    Ok(lines)
}

/// Where in libtest's output we are.
#[derive(Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Results,
    Successes,
    Failures,
}

/// libtest's text, understood.
#[derive(Debug, Default)]
struct Report {
    part: Part,
    /// The test whose captured output is being shown.
    shown: Option<String>,
    results: BTreeMap<String, Ending>,
}

impl Report {
    /// Take a line; returns whether a person should see it.
    fn read(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.part = Part::Successes,
            "failures:" => self.part = Part::Failures,
            _ if line.starts_with("test result: ") => self.part = Part::Results,
            _ => {}
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----"))
        {
            self.shown = Some(name.to_owned());
        }
        match self.part {
            Part::Results => {
                self.result(line);
                true
            }
            Part::Successes => self.skip(line),
            Part::Failures => true,
        }
    }

    /// `test NAME ... ok`
    fn result(&mut self, line: &str) {
        let Some((name, result)) = line.strip_prefix("test ").and_then(|l| l.split_once(" ... "))
        else {
            return;
        };
        let name = name.strip_suffix(" - should panic").unwrap_or(name);
        let ending = match result {
            "ok" => Ending::Passed,
            "FAILED" => Ending::Failed("see above".into()),
            _ if result.starts_with("ignored") => Ending::Failed("ignored".into()),
            // A line torn by other output: no result, and so a failure.
            _ => return,
        };
        self.results.insert(name.to_owned(), ending);
    }

    /// `SKIP name: reason` among what a passed test printed.
    fn skip(&mut self, line: &str) -> bool {
        let Some(reason) = line.strip_prefix("SKIP ").and_then(|l| l.split_once(": ")) else {
            return false;
        };
        if let Some(result) = self.shown.as_ref().and_then(|name| self.results.get_mut(name)) {
            *result = Ending::Skipped(reason.1.to_owned());
        }
        true
    }

    /// One outcome for each expected test, and one more when the binary itself failed otherwise.
    fn judge(mut self, binary: &str, expected: &[String], ending: Option<String>) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = expected
            .iter()
            .map(|name| {
                let missing = || Ending::Failed("should have run and reported nothing".into());
                let result = self.results.remove(name).unwrap_or_else(missing);
                Outcome { name: format!("{binary} {name}"), result }
            })
            .collect();
        if let Some(ending) = ending.filter(|_| !outcomes.iter().any(Outcome::failed)) {
            outcomes.push(Outcome { name: binary.to_owned(), result: Ending::Failed(ending) });
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str, expected: &[&str], ending: Option<&str>) -> Vec<Ending> {
        let mut report = Report::default();
        text.lines().for_each(|line| {
            report.read(line);
        });
        let expected: Vec<String> = expected.iter().map(|&name| name.to_owned()).collect();
        let outcomes = report.judge("b", &expected, ending.map(str::to_owned));
        outcomes.into_iter().map(|outcome| outcome.result).collect()
    }

    #[test]
    fn a_listed_test_without_a_result_line_has_failed() {
        let text = "running 2 tests\ntest a ... ok\n";
        let results = judged(text, &["a", "b"], Some("ended with signal 9"));
        assert_eq!(results[0], Ending::Passed);
        assert!(matches!(results[1], Ending::Failed(_)));
        assert_eq!(results.len(), 2, "the missing test already says it");
    }

    #[test]
    fn ignored_and_torn_results_have_failed() {
        let text = "test a ... ignored, slow\ntest b ... hello ok\n";
        assert!(judged(text, &["a", "b"], None).iter().all(|r| matches!(r, Ending::Failed(_))));
    }

    #[test]
    fn a_skip_line_belongs_to_the_test_that_printed_it() {
        let text = "test a ... ok\ntest b - should panic ... ok\n\nsuccesses:\n\n---- a stdout ----\nnoise\n\
                    SKIP whatever: kernel lacks it\n\n\nsuccesses:\n    a\n    b\n\ntest result: ok. 2 passed\n";
        let results = judged(text, &["a", "b"], None);
        assert_eq!(results, [Ending::Skipped("kernel lacks it".into()), Ending::Passed]);
    }

    #[test]
    fn a_failed_test_cannot_skip_itself() {
        let text =
            "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\nSKIP a: kernel lacks it\n";
        assert!(matches!(judged(text, &["a"], None)[0], Ending::Failed(_)));
    }

    #[test]
    fn a_binary_that_fails_after_its_last_test_is_a_failure() {
        let results = judged("test a ... ok\n", &["a"], Some("ended with signal 11"));
        assert!(matches!(results[1], Ending::Failed(_)));
    }
}
