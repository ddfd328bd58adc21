//! `holdfast metrics`: the agent's numbers in the Prometheus text format (version 0.0.4), for the
//! node exporter's textfile collector or anything else that reads it.

use std::fmt::Write;

use holdfast_common::control::{Reply, Request, StatusReport};

use super::{CliError, Session, unexpected};

/// Prints them all. Exits 0, healthy or not: that is a number too.
pub(super) fn metrics(session: &mut Session) -> Result<u8, CliError> {
    for reply in session.all(&Request::Status)? {
        let Reply::Status(report) = reply else { return Err(unexpected(&reply)) };
        session.out.line(text(&report).trim_end())?;
    }
    Ok(0)
}

/// One family after the other, each with its help.
fn text(report: &StatusReport) -> String {
    let mut page = Page::default();
    let held = &report.on_access;
    let proof = &report.proof;
    page.one("up", "gauge", "Whether nothing is red.", u64::from(report.problems.is_empty()));
    page.family("opens_total", "counter", "Opens and execs that were held, by answer.");
    let answers = [
        ("allowed", held.allowed),
        ("denied", held.denied),
        ("own", held.own),
        ("cached", held.cached),
        ("excluded", held.excluded),
    ];
    for (answer, count) in answers {
        page.sample("opens_total", &[("answer", answer)], count);
    }
    let denied_paths = held.denied_paths;
    page.one("denied_paths_total", "counter", "Opens of files at denied paths.", denied_paths);
    page.family("failures_total", "counter", "Answers without a verdict, by reason.");
    for (reason, count) in &held.failures {
        page.sample("failures_total", &[("reason", reason.name())], *count);
    }
    page.one("past_deadline_total", "counter", "Answers after the deadline.", held.past_deadline);
    page.one(
        "longest_held_microseconds",
        "gauge",
        "Longest time that an open was held.",
        held.longest_held_us,
    );
    page.family(
        "sensor_records_total",
        "counter",
        "Records of the sensor: generated = delivered + aggregated + lost.",
    );
    for state in &report.sensor {
        let fates = [
            ("generated", state.generated),
            ("delivered", state.delivered),
            ("aggregated", state.aggregated),
            ("lost", state.lost),
        ];
        for (fate, count) in fates {
            let labels = [("sensor", state.name.as_str()), ("fate", fate)];
            page.sample("sensor_records_total", &labels, count);
        }
    }
    page.family("sensor_active", "gauge", "Whether a part of the sensor sees.");
    for state in &report.sensor {
        page.sample("sensor_active", &[("sensor", &state.name)], u64::from(state.active));
    }
    page.family("proven", "gauge", "Whether a capability was proven when it was last tried.");
    for line in &proof.lines {
        page.sample("proven", &[("capability", &line.capability)], u64::from(line.ok));
    }
    page.one(
        "last_proven_milliseconds",
        "gauge",
        "When all was last proven, since the Unix epoch; 0 for never.",
        proof.last_proven_ms.unwrap_or(0).unsigned_abs(),
    );
    page.one("workers", "gauge", "Scan workers alive.", report.workers);
    page.one("quarantine_items", "gauge", "Files in quarantine.", report.quarantine.items);
    page.one("quarantine_bytes", "gauge", "Their bytes on disk.", report.quarantine.bytes);
    page.one("journal_events", "gauge", "Events in the journal.", report.journal_events);
    page.one(
        "journal_dropped_total",
        "counter",
        "Telemetry events that found no place.",
        report.journal_dropped,
    );
    page.0
}

/// Text in the exposition format; every name begins with `holdfast_`.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP holdfast_{name} {help}\n# TYPE holdfast_{name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "holdfast_{name}{labels} {value}");
    }
}

/// Mount points are attacker-controlled: a label value escapes these three.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_stays_inside_its_label() {
        let mut page = Page::default();
        page.sample("proven", &[("capability", "on access: /a\"} 1\nx\\")], 0);
        assert_eq!(page.0, "holdfast_proven{capability=\"on access: /a\\\"} 1\\nx\\\\\"} 0\n");
    }
}
