//! How one test ended, and the counts over all of them.
//!
//! Invariant: the last line of a run is the counts, alone; the run fails when anything failed or
//! nothing ran. In CI a skip counts only for a reason that stands in [`ALLOWED_SKIPS`].

use anyhow::Result;

/// What a test may lack on a machine where everything else is there: a reason starts with one of
/// these.
const ALLOWED_SKIPS: &[&str] = &[
    // This kernel was built or booted without it; the virtual machines have kernels with it.
    "kernel lacks ",
    // Large inputs that are not part of the repository.
    "no shared data",
    // Programs of other makers that are compared with, not needed.
    "clamav is not installed",
];

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Passed,
    /// With the reason in one line, where there is one.
    Failed(String),
    /// With the reason.
    Skipped(String),
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) result: Ending,
}

impl Outcome {
    /// Whether it failed.
    pub(crate) fn failed(&self) -> bool {
        matches!(self.result, Ending::Failed(_))
    }
}

/// The counts line is already out and says why: exit 1 without another word.
#[derive(Debug)]
pub(crate) struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tests failed")
    }
}

impl std::error::Error for Reported {}

/// Counts so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failures: Vec<String>,
    skipped: Vec<String>,
    strict: bool,
}

impl Tally {
    /// Unknown reasons for a skip fail when `strict`.
    pub(crate) fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// Count one.
    pub(crate) fn add(&mut self, outcome: Outcome) {
        let Outcome { name, result } = outcome;
        match result {
            Ending::Passed => self.passed += 1,
            Ending::Failed(reason) => self.failures.push(format!("{name}: {reason}")),
            Ending::Skipped(reason) if self.strict && !allowed(&reason) => {
                self.failures
                    .push(format!("{name}: skipped for a reason not on the list: {reason}"));
            }
            Ending::Skipped(reason) => self.skipped.push(format!("{name}: {reason}")),
        }
    }

    /// The counts, in one line.
    fn line(&self) -> String {
        let mut line = format!("{} passed, {} failed", self.passed, self.failures.len());
        if !self.skipped.is_empty() {
            line.push_str(&format!(", {} skipped", self.skipped.len()));
        }
        line
    }

    /// Names what failed and what was skipped, then the counts line.
    pub(crate) fn close(self) -> Result<()> {
        println!();
        for skipped in &self.skipped {
            println!("skipped  {skipped}");
        }
        for failure in &self.failures {
            println!("FAILED   {failure}");
        }
        if self.passed + self.failures.len() == 0 {
            println!("FAILED   no test ran");
        }
        println!("{}", self.line());
        if self.failures.is_empty() && self.passed > 0 { Ok(()) } else { Err(Reported.into()) }
    }
}

fn allowed(reason: &str) -> bool {
    ALLOWED_SKIPS.iter().any(|allowed| reason.starts_with(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(strict: bool, results: &[Ending]) -> Tally {
        let mut tally = Tally::new(strict);
        for result in results {
            tally.add(Outcome { name: "a".into(), result: result.clone() });
        }
        tally
    }

    #[test]
    fn the_counts_line_has_its_fixed_form() {
        assert_eq!(tally(true, &[Ending::Passed]).line(), "1 passed, 0 failed");
        let skipped = Ending::Skipped("kernel lacks kprobes".into());
        let failed = Ending::Failed(String::new());
        assert_eq!(
            tally(true, &[Ending::Passed, skipped, failed]).line(),
            "1 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn in_ci_an_unknown_reason_to_skip_is_a_failure() {
        let results = [Ending::Passed, Ending::Skipped("did not feel like it".into())];
        assert!(tally(true, &results).close().is_err());
        assert!(tally(false, &results).close().is_ok());
    }

    #[test]
    fn a_run_without_a_passed_test_fails() {
        assert!(tally(false, &[]).close().is_err());
        assert!(tally(false, &[Ending::Skipped("kernel lacks all".into())]).close().is_err());
    }
}
