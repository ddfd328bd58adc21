//! Which files the sensor tells of, as far as a rule's text asks for one.
//!
//! A config may add and remove rows (`[sensor.files]`); this answers for the sensor's shipped
//! list. Pure.

use std::sync::LazyLock;

use globset::{GlobBuilder, GlobMatcher};

use super::view::Source;
use crate::sensor::files::list::SHIPPED;

/// What a rule says of a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pattern<'a> {
    Whole(&'a str),
    Start(&'a str),
    End(&'a str),
    Part(&'a str),
}

struct Row {
    glob: GlobMatcher,
    /// A path that fits.
    sample: String,
    /// Up to the first special character.
    start: String,
}

static TABLE: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let homes = |row: &str| match row.strip_prefix('~') {
        Some(rest) => vec![format!("/root{rest}"), format!("/home/*{rest}")],
        None => vec![row.to_owned()],
    };
    SHIPPED
        .iter()
        .flat_map(|(.., rows)| *rows)
        .flat_map(|row| homes(row))
        .filter_map(|row| Row::new(&row))
        .collect()
});

impl Row {
    fn new(row: &str) -> Option<Self> {
        // Rules ignore case; which file is meant is clear all the same.
        let glob = GlobBuilder::new(row).literal_separator(true).case_insensitive(true).build();
        let start = row.split('*').next().unwrap_or_default().to_owned();
        let sample = row.replace("**", "x").replace('*', "x");
        Some(Self { glob: glob.ok()?.compile_matcher(), sample, start })
    }

    fn fits(&self, path: &str) -> bool {
        self.glob.is_match(path)
    }

    fn folder(&self) -> &str {
        self.sample.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

/// True when an event of this source can name such a file.
pub(super) fn possible(source: Source, pattern: Pattern<'_>) -> bool {
    let audit = source == Source::AuditPath;
    TABLE.iter().any(|row| match pattern {
        Pattern::Whole(path) => row.fits(path),
        Pattern::Start(start) => {
            row.start.starts_with(start)
                || ["", "x", "x/x"].iter().any(|rest| row.fits(&format!("{start}{rest}")))
        }
        Pattern::End(end) => {
            row.sample.ends_with(end)
                || row.fits(end)
                || (!end.starts_with('/') && row.fits(&format!("{}/x{end}", row.folder())))
        }
        Pattern::Part(part) => {
            row.sample.contains(part)
                || ["", "x"].iter().any(|rest| row.fits(&format!("{part}{rest}")))
                || (!part.contains('/') && row.fits(&format!("{}/x{part}x", row.folder())))
                || (audit && row.fits(&format!("{}{part}x", row.folder())))
        }
    })
}

/// True for one of the watched paths, each with `x` where its row has a wildcard.
pub(super) fn some(is: &dyn Fn(&str) -> bool) -> bool {
    TABLE.iter().any(|row| is(&row.sample))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_possible_when_some_watched_file_can_have_it() {
        use Pattern::{End, Part, Start, Whole};
        let can = |pattern| possible(Source::FileEvent, pattern);
        assert!(can(Whole("/etc/crontab")) && can(Whole("/home/u/.bashrc")));
        assert!(!can(Whole("/tmp/rootlog")) && !can(Whole("/var/run/haldrund.pid")));
        assert!(can(Start("/etc/sudoers.d/")) && can(Start("/etc/")) && can(Start("/var/www/a/b")));
        assert!(!can(Start("/tmp/")) && !can(Start("/home/httpd/html/")));
        assert!(can(End("/etc/doas.conf")) && can(End("ebpfbackdoor")) && can(End("/sysctl.conf")));
        assert!(!can(End("/sysrq-trigger")));
        assert!(can(Part("/etc/profile.d/")) && can(Part("{echo")));
        assert!(!can(Part("/etc/audit/")));
        assert!(possible(Source::AuditPath, Part("/.")));
    }
}
