//! YARA rules by the boreal engine: compile a bundle's files, match a buffer.
//!
//! Runs inside the cage only. One namespace a file; `include` is refused; boreal interprets its
//! rules, so no executable memory is needed. Reads no file and no clock but its time limit.

use std::time::Duration;

use boreal::compiler::{Compiler, CompilerParams, generate_description};
use boreal::scanner::{ScanCallbackResult, ScanError, ScanEvent, ScanParams};

/// Rules while files are added.
pub struct Builder {
    compiler: Compiler,
}

/// Compiled rules.
pub struct Rules {
    scanner: boreal::Scanner,
    count: u64,
}

/// The scan took longer than its limit and nothing had matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut;

impl Default for Builder {
    fn default() -> Self {
        let mut compiler = Compiler::new();
        compiler.set_params(CompilerParams::default().disable_includes(true));
        Self { compiler }
    }
}

impl Builder {
    /// Compiles one file's rules.
    ///
    /// # Errors
    /// `file:line:column: error: …`
    pub fn add(&mut self, file: &str, content: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(content).map_err(|error| {
            let before = &content[..error.valid_up_to()];
            let line = before.split(|byte| *byte == b'\n').count();
            format!("{file}:{line}: not UTF-8")
        })?;
        match self.compiler.add_rules_str_in_namespace(text, file) {
            Ok(_) => Ok(()),
            Err(error) => Err(generate_description(&error.to_diagnostic(), file, text)),
        }
    }

    /// Ends; every scan stops after `limit`.
    #[must_use]
    pub fn finish(self, limit: Duration) -> Rules {
        let mut scanner = self.compiler.finalize();
        scanner.set_scan_params(ScanParams::default().timeout_duration(Some(limit)));
        let count = scanner.rules().count() as u64;
        Rules { scanner, count }
    }
}

impl Rules {
    /// Number of rules.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The name of the first rule that matches; private rules do not count.
    ///
    /// # Errors
    /// [`TimedOut`]
    pub fn first_match(&self, content: &[u8]) -> Result<Option<&str>, TimedOut> {
        let mut found = None;
        let ended = self.scanner.scan_mem_with_callback(content, |event| match event {
            ScanEvent::RuleMatch(rule) => {
                found = Some(rule.name);
                ScanCallbackResult::Abort
            }
            _ => ScanCallbackResult::Continue,
        });
        match (ended, found) {
            (Ok(()) | Err(ScanError::CallbackAbort), found) => Ok(found),
            (Err(_), Some(found)) => Ok(Some(found)),
            // Reading and process errors do not exist for a buffer: only time runs out.
            (Err(_), None) => Err(TimedOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn rules(files: &[(&str, &str)]) -> Result<Rules, String> {
        let mut builder = Builder::default();
        for (file, text) in files {
            builder.add(file, text.as_bytes())?;
        }
        Ok(builder.finish(LIMIT))
    }

    #[test]
    fn a_rule_matches_and_names_itself() {
        let rules = rules(&[
            ("a.yar", "rule one { strings: $a = \"needle\" condition: $a }"),
            (
                "b.yar",
                "private rule one { condition: true }\nrule two { condition: filesize == 3 }",
            ),
        ])
        .expect("two namespaces may share a rule name");
        assert_eq!(rules.count(), 3);
        assert_eq!(rules.first_match(b"hay needle hay"), Ok(Some("one")));
        assert_eq!(rules.first_match(b"hay"), Ok(Some("two")));
        assert_eq!(rules.first_match(b"a private match is no match"), Ok(None));
    }

    #[test]
    fn an_error_names_file_and_line() {
        let error =
            rules(&[("a.yar", "rule ok { condition: true }\n\nrule bad { condition: $x }")])
                .err()
                .expect("undefined string");
        assert!(error.starts_with("a.yar:3:"), "{error}");
        let error = rules(&[("i.yar", "\ninclude \"/etc/passwd\"")]).err().expect("include");
        assert!(error.starts_with("i.yar:2:") && error.contains("include"), "{error}");
        let mut builder = Builder::default();
        assert_eq!(builder.add("u.yar", b"\n\n\xff"), Err("u.yar:3: not UTF-8".to_owned()));
    }

    #[test]
    fn a_scan_stops_at_its_limit() {
        let mut builder = Builder::default();
        let slow = "rule slow { condition: for any i in (0..1000000000) : (uint8(i) == 300) }";
        builder.add("slow.yar", slow.as_bytes()).expect("slow rule");
        let rules = builder.finish(Duration::from_millis(50));
        assert_eq!(rules.first_match(b"x"), Err(TimedOut));
    }
}
