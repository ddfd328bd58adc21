//! Text for people: nothing that came from outside may move the terminal or lie about order.
//!
//! INVARIANT: every string that came over a socket and is printed for people went through [`safe`],
//! and every JSON line through [`json_line`], which loses nothing. Prints nothing itself.

use std::borrow::Cow;
use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

/// Narrowest table, in columns: below it words are cut to pieces.
const NARROWEST: u16 = 60;

/// Escapes control characters and those that are invisible or reorder their neighbours, as
/// `\xNN` for each byte. The agent has done so already; a rogue one may not have.
#[must_use]
pub fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hostile(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(escaped, "\\x{byte:02x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// One line of JSON; what [`safe`] escapes stands there as `\uNNNN`, which means the same.
///
/// # Errors
/// What serde says of a value that is no JSON.
pub fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let plain = serde_json::to_string(value)?;
    if !plain.chars().any(is_hostile) {
        return Ok(plain);
    }
    let mut escaped = String::with_capacity(plain.len() + 8);
    for c in plain.chars() {
        if is_hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    Ok(escaped)
}

/// A table without lines, at most `width` columns wide; each cell is made safe here.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>], width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width.max(NARROWEST));
    }
    for row in rows {
        table.add_row(row.iter().map(|cell| safe(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Control, bidirectional, zero-width, line-separating and tag characters (Unicode categories
/// Cc, Zl, Zp and the format characters that change how others are seen).
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Local time with its offset: `2026-11-22 06:12:01 +01:00`.
#[must_use]
pub fn local_time(milliseconds: i64) -> String {
    time_in(milliseconds, TimeZone::system())
}

fn time_in(milliseconds: i64, zone: TimeZone) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => time.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %:z").to_string(),
        Err(_) => format!("{milliseconds} ms"),
    }
}

/// `512 B`, `1.5 KiB`, …
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for next in units {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `2d 3h`, `3h 12m`, `4m 1s`, `12s`
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        (_, _, _) => format!("{days}d {hours}h"),
    }
}

/// What `--since` says, in milliseconds since the epoch: `45s`, `30m`, `2h`, `3d`, `1w` before
/// `now_ms`, or an RFC 3339 time.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse_since(text: &str, now_ms: i64) -> Result<i64, String> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let wrong = || {
        format!(
            "{text:?} is neither a span such as 30m, 2h or 3d, \
             nor a time such as 2026-11-22T08:00:00Z"
        )
    };
    let seconds = span_s(text).ok_or_else(wrong)?;
    let span = i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1000));
    // Longer ago than time itself: everything.
    Ok(span.and_then(|span| now_ms.checked_sub(span)).unwrap_or(0).max(0))
}

/// Seconds of a span such as `45s`, `30m`, `2h`, `3d`, `1w`; the most there are for a longer one.
/// Nothing for any other text.
#[must_use]
pub fn span_s(text: &str) -> Option<u64> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_cannot_reach_the_terminal() {
        assert_eq!(safe("caf\u{e9} \u{65e5}\u{672c}.txt"), "caf\u{e9} \u{65e5}\u{672c}.txt");
        assert_eq!(safe("a\x1b[2Jb\r\n\u{9b}2J"), r"a\x1b[2Jb\x0d\x0a\xc2\x9b2J");
        assert_eq!(safe("x\u{202e}fdp.exe"), r"x\xe2\x80\xaefdp.exe");
        assert_eq!(
            safe("a\u{200b}b\u{2028}c\u{e0041}"),
            r"a\xe2\x80\x8bb\xe2\x80\xa8c\xf3\xa0\x81\x81"
        );
    }

    #[test]
    fn a_span_is_digits_and_a_unit() {
        for (text, seconds) in
            [("45s", 45), ("30m", 1800), ("2h", 7200), ("3d", 259_200), ("1w", 604_800)]
        {
            assert_eq!(span_s(text), Some(seconds), "{text}");
        }
        assert_eq!(span_s("99999999999999999999d"), Some(u64::MAX));
        for bad in ["", "h", "2", "-2h", "2 h", "2x", "1.5h", "é"] {
            assert_eq!(span_s(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_table_fits_the_terminal_and_keeps_hostile_names_in_their_cell() {
        let rows = vec![
            vec!["a\n\x1b[31mb".into(), "x".repeat(300)],
            vec!["plain".into(), "/srv/\u{202e}gpj.exe".into()],
        ];
        let wide = table(&["NAME", "PATH"], &rows, None);
        assert_eq!(wide.lines().count(), 3, "{wide}");
        assert!(wide.contains(r"a\x0a\x1b[31mb") && wide.contains(r"\xe2\x80\xaegpj"), "{wide}");
        let narrow = table(&["NAME", "PATH"], &rows, Some(80));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        let tiny = table(&["NAME", "PATH"], &rows, Some(1));
        assert!(tiny.lines().all(|line| line.chars().count() <= usize::from(NARROWEST)));
    }

    #[test]
    fn json_is_escaped_without_loss() {
        let text = "a\u{202e}b\u{9b}\u{7f}\u{e0041}\u{1b}\"\\";
        let line = json_line(&text).expect("json");
        assert!(!line.chars().any(is_hostile), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).expect("json"), text);
    }

    #[test]
    fn since_takes_spans_and_times() {
        let now = 1_000_000_000_000;
        assert_eq!(parse_since("2h", now), Ok(now - 7_200_000));
        assert_eq!(parse_since(" 30m ", now), Ok(now - 1_800_000));
        assert_eq!(parse_since("3d", now), Ok(now - 259_200_000));
        assert_eq!(parse_since("1970-01-01T00:00:01Z", now), Ok(1000));
        assert_eq!(parse_since("1970-01-01T01:00:01+01:00", now), Ok(1000));
        assert_eq!(parse_since("999999999999999w", now), Ok(0));
        for bad in ["", "h", "2", "-2h", "2x", "2\u{e9}", "+2h", "1.5h", "yesterday", "2 h"] {
            assert!(parse_since(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_readable() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, (1 << 20) - 1, u64::MAX].map(size);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "16.0 EiB"]
        );
        assert_eq!([12, 241, 11_520, 183_600].map(duration), ["12s", "4m 1s", "3h 12m", "2d 3h"]);
    }

    #[test]
    fn times_carry_their_offset() {
        assert_eq!(time_in(0, TimeZone::UTC), "1970-01-01 00:00:00 +00:00");
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(time_in(0, zone), "1969-12-31 21:00:00 -03:00");
        assert_eq!(time_in(i64::MAX, TimeZone::UTC), format!("{} ms", i64::MAX));
    }
}
