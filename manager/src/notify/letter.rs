//! What a mail says: its subject, as text and as HTML.
//!
//! INVARIANT: the subject is one line without control characters; in HTML everything is escaped,
//! nothing is loaded, no link is made.

use std::fmt::Write;

use super::Message;
use super::fields::fields;
use super::notice::Notice;
use super::text::{html, plain, time};

/// Alerts that are shown with all fields; the others have one line each.
pub(super) const SHOWN: usize = 20;
/// Bytes of a field.
const FIELD: usize = 8192;

/// The subject: one line, without what hosts could put into a header.
#[must_use]
pub fn subject(message: &Message) -> String {
    let Some(first) = message.notices.first() else { return "[Holdfast]".to_owned() };
    let hosts: std::collections::BTreeSet<&str> =
        message.notices.iter().map(|notice| notice.host.as_str()).collect();
    let host = match hosts.len() {
        1 => plain(&first.host, 100),
        many => format!("{many} hosts"),
    };
    let test = if message.test { " TEST" } else { "" };
    let level = message
        .notices
        .iter()
        .max_by_key(|notice| crate::store::notifications::level_number(&notice.level));
    let level = plain(level.map_or("", |notice| &notice.level), 20);
    let title = plain(&first.title, 150);
    match (message.notices.len(), message.total()) {
        (1, 1) => format!("[Holdfast]{test} {level} on {host}: {title}"),
        (1, total) => format!("[Holdfast]{test} {level} on {host}: {title} ({total} detections)"),
        (alerts, total) => format!(
            "[Holdfast]{test} {level} on {host}: {alerts} alerts, {total} detections: {title}"
        ),
    }
}

fn head(message: &Message) -> String {
    let total = message.total();
    let detections = if total == 1 { "detection" } else { "detections" };
    let alerts = match message.notices.len() {
        1 => "1 alert".to_owned(),
        many => format!("{many} alerts"),
    };
    format!("{total} {detections}, {alerts}.")
}

fn line(notice: &Notice) -> String {
    let (host, title) = (plain(&notice.host, 100), plain(&notice.title, 300));
    let level = plain(&notice.level, 20);
    format!("{} × {level} on {host}: {title} (last {})", notice.count, time(notice.last_ms))
}

pub(super) fn body_text(message: &Message) -> String {
    let mut out = format!("{}\n", head(message));
    for notice in message.notices.iter().take(SHOWN) {
        out.push('\n');
        for (name, value) in fields(notice) {
            let _ = writeln!(out, "{name}: {}", plain(&value, FIELD));
        }
    }
    if message.notices.len() > SHOWN {
        out.push_str("\nFurther alerts:\n");
        for notice in message.notices.iter().skip(SHOWN) {
            let _ = writeln!(out, "- {}", line(notice));
        }
    }
    let _ = writeln!(out, "\n-- \nHoldfast, message {}", message.id);
    out
}

pub(super) fn body_html(message: &Message) -> String {
    let mut out = format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"></head>\
         <body style=\"font-family:sans-serif\"><p>{}</p>",
        html(&head(message))
    );
    for notice in message.notices.iter().take(SHOWN) {
        out.push_str("<table style=\"border-collapse:collapse;margin-bottom:1em\">");
        for (name, value) in fields(notice) {
            let value = html(&plain(&value, FIELD));
            let _ = writeln!(
                out,
                "<tr><th style=\"text-align:left;vertical-align:top;padding:2px 12px 2px 0\">{}\
                 </th><td style=\"word-break:break-all\"><bdi>{value}</bdi></td></tr>",
                html(name)
            );
        }
        out.push_str("</table>\n");
    }
    if message.notices.len() > SHOWN {
        out.push_str("<p>Further alerts:</p><ul>");
        for notice in message.notices.iter().skip(SHOWN) {
            let _ = writeln!(out, "<li><bdi>{}</bdi></li>", html(&line(notice)));
        }
        out.push_str("</ul>");
    }
    let _ = write!(out, "<p>Holdfast, message {}</p></body></html>", message.id);
    out
}
