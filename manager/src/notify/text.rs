//! Hostile text made harmless for people's eyes, and times for them.
//!
//! Everything that comes from a host goes through [`plain`] before it stands in a mail: no line
//! breaks, no control characters, nothing that reorders or hides text.

use std::fmt::Write;

/// Text on one line, at most so many bytes: control characters, line and paragraph separators,
/// bidirectional controls and invisible characters appear as `\u{…}`.
#[must_use]
pub fn plain(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        if out.len() >= most {
            out.push('…');
            break;
        }
        if hides(c) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character moves, hides or reorders what stands around it.
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Text for HTML, between tags and in quoted attributes.
#[must_use]
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// A time in UTC, to the millisecond, as RFC 3339 has it; the number itself where it is no date.
#[must_use]
pub fn time(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms)
        .map_or_else(|_| time_ms.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_moves_or_hides_text_is_shown_by_number() {
        assert_eq!(plain("a\r\nBcc: x", 100), r"a\u{d}\u{a}Bcc: x");
        assert_eq!(plain("exe\u{202e}fdp", 100), r"exe\u{202e}fdp");
        assert_eq!(plain("a\u{2028}b\u{200b}c\u{1b}[2J", 100), r"a\u{2028}b\u{200b}c\u{1b}[2J");
        assert_eq!(plain("ééé", 4), "éé…");
        assert_eq!(html("<a href='x\"&'>"), "&lt;a href=&#39;x&quot;&amp;&#39;&gt;");
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }

    proptest! {
        #[test]
        fn plain_text_is_one_bounded_line(text in any::<String>(), most in 0_usize..300) {
            let out = plain(&text, most);
            prop_assert!(out.len() <= most + 16);
            prop_assert!(!out.chars().any(|c| c.is_control() || hides(c)));
        }
    }
}
