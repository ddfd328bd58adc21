//! ArcSight Common Event Format (revision 25): one line an alert.
//!
//! Escaping: `\` and `|` in the header, `\` and `=` in values, line breaks as `\n` in values and
//! as blanks in the header. Control characters and what reorders text appear by number.

use std::fmt::Write;

use super::fields::{disposition_name, family, program, scan_type};
use super::notice::Notice;
use super::text::plain;

/// Bytes of a value.
const VALUE: usize = 1023;

/// Escapes a part of the header.
#[must_use]
pub fn header(text: &str) -> String {
    let text = text.replace(['\r', '\n'], " ");
    plain(&text, 512).replace('\\', "\\\\").replace('|', "\\|")
}

/// Escapes a value of the extension.
#[must_use]
pub fn value(text: &str) -> String {
    let mut out = String::new();
    for (at, part) in text.split('\n').enumerate() {
        if at > 0 {
            out.push_str("\\n");
        }
        let part = plain(part.trim_end_matches('\r'), VALUE);
        // The numbers that `plain` shows begin with a backslash of its own; both are escaped.
        out.push_str(&part.replace('\\', "\\\\").replace('=', "\\="));
        if out.len() > VALUE {
            break;
        }
    }
    out
}

/// 0 to 10.
const fn severity(level: i64) -> i64 {
    match level {
        0 => 1,
        1 => 3,
        2 => 5,
        3 => 8,
        _ => 10,
    }
}

/// The line of an alert.
#[must_use]
pub fn of_notice(notice: &Notice) -> String {
    let level = severity(crate::store::notifications::level_number(&notice.level));
    let mut out = format!(
        "CEF:0|Holdfast|Holdfast|{}|{}|{}|{level}|",
        env!("CARGO_PKG_VERSION"),
        header(&format!("{}:{}", notice.kind, notice.model)),
        header(&notice.title),
    );
    let mut put = |key: &str, text: &str| {
        if !text.is_empty() {
            let _ = write!(out, "{key}={} ", value(text));
        }
    };
    put("externalId", &notice.alert.to_string());
    put("cat", &notice.kind);
    put("cnt", &notice.count.to_string());
    put("rt", &notice.last_ms.to_string());
    put("start", &notice.first_ms.to_string());
    put("end", &notice.last_ms.to_string());
    put("dvchost", &notice.host);
    put("dhost", &notice.host);
    if let Some(address) =
        notice.addresses.iter().find(|text| text.parse::<std::net::Ipv4Addr>().is_ok())
    {
        put("dvc", address);
    }
    if let Some((process, _)) = notice.evidence.process() {
        put("spid", &process.key.pid.to_string());
        put("sproc", &program(process));
        put("suser", &process.user);
        put("suid", &process.uid.to_string());
        put("cs1Label", "CommandLine");
        put("cs1", &process.command_line());
    }
    if let Some(malware) = notice.evidence.malware() {
        put("filePath", &malware.path);
        put("fname", malware.path.rsplit('/').next().unwrap_or_default());
        put("fsize", &malware.file.size.to_string());
        put("fileHash", &malware.hashes.sha256);
        put("fileModificationTime", &malware.file.modified_ms.to_string());
        put("act", disposition_name(malware.disposition));
        put("reason", malware.reason.as_deref().unwrap_or_default());
        put("cs2Label", "MD5");
        put("cs2", &malware.hashes.md5);
        put("cs3Label", "ScanType");
        put("cs3", scan_type(malware.scan_type));
        put("cs4Label", "Family");
        put("cs4", &family(&malware.signature.name));
    } else if let Some(model) = notice.evidence.model() {
        put("act", &model.response);
        put("reason", &model.responded);
    }
    if !notice.attack.is_empty() {
        put("cs5Label", "AttackTechniques");
        put("cs5", &notice.attack.join(" "));
    }
    if notice.simulated {
        put("cs6Label", "Simulated");
        put("cs6", "true");
    }
    put("msg", &notice.title);
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_formats_own_signs_are_escaped() {
        assert_eq!(header("a|b\\c=d\ne"), "a\\|b\\\\c=d e");
        assert_eq!(value("a|b\\c=d\ne"), "a|b\\\\c\\=d\\ne");
        assert_eq!(value("x\r\ny act=allowed"), "x\\ny act\\=allowed");
        assert_eq!(value("\u{202e}"), "\\\\u{202e}");
    }

    proptest! {
        #[test]
        fn no_value_can_begin_another_key_or_line(text in any::<String>()) {
            let escaped = value(&text);
            prop_assert!(!escaped.contains(['\n', '\r']));
            let mut before = ' ';
            let mut slashes = 0;
            for c in escaped.chars() {
                if c == '=' {
                    prop_assert!(before == '\\' && slashes % 2 == 1);
                }
                slashes = if c == '\\' { slashes + 1 } else { 0 };
                before = c;
            }
        }
    }
}
