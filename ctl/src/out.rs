//! Standard output: tables for people, one JSON object a line for programs.
//!
//! INVARIANT: every text goes through `text::safe`, every JSON line through `text::json_line`.

use std::io::{self, IsTerminal, Write};

use holdfast_common::text::{self, local_time, safe};
use serde_json::Value;

use crate::CtlError;

/// Deepest JSON that [`Out::facts`] spreads out.
const DEEPEST: usize = 6;

/// A column of a table: its title, and where in the JSON its cells are (RFC 6901).
pub(crate) type Column = (&'static str, &'static str);

/// Where a command prints.
pub(crate) struct Out {
    pub(crate) json: bool,
    width: Option<u16>,
}

impl Out {
    pub(crate) fn stdout(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let width = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col);
        Self { json, width: width.filter(|width| terminal && *width > 0) }
    }

    /// One line for people.
    pub(crate) fn line(&self, line: &str) -> Result<(), CtlError> {
        let mut to = io::stdout().lock();
        writeln!(to, "{}", safe(line))?;
        Ok(to.flush()?)
    }

    /// One JSON line.
    pub(crate) fn json(&self, value: &Value) -> Result<(), CtlError> {
        let line = text::json_line(value).map_err(io::Error::from)?;
        let mut to = io::stdout().lock();
        writeln!(to, "{line}")?;
        Ok(to.flush()?)
    }

    /// Many of a kind: a table, or a line of JSON each.
    pub(crate) fn list(&self, columns: &[Column], items: &[Value]) -> Result<(), CtlError> {
        if self.json {
            return items.iter().try_for_each(|item| self.json(item));
        }
        let header: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
        let row = |item: &Value| columns.iter().map(|(_, at)| cell(item, at)).collect();
        let rows: Vec<Vec<String>> = items.iter().map(row).collect();
        let table = text::table(&header, &rows, self.width);
        let mut to = io::stdout().lock();
        writeln!(to, "{table}")?;
        Ok(to.flush()?)
    }

    /// One of a kind, on one line.
    pub(crate) fn row(&self, columns: &[Column], item: &Value) -> Result<(), CtlError> {
        if self.json {
            return self.json(item);
        }
        let cells: Vec<String> = columns.iter().map(|(_, at)| cell(item, at)).collect();
        self.line(&cells.join("  "))
    }

    /// Everything of one: a line for each fact.
    pub(crate) fn facts(&self, value: &Value) -> Result<(), CtlError> {
        if self.json {
            return self.json(value);
        }
        let mut lines = Vec::new();
        spread("", value, 0, &mut lines);
        lines.iter().try_for_each(|line| self.line(line))
    }

    /// Something for people beside the output.
    pub(crate) fn note(&self, text: &str) {
        // Where nobody reads it, nobody misses it.
        let _ = writeln!(io::stderr(), "{}", safe(text));
    }
}

/// A value as a cell; times by the name that they have.
fn cell(item: &Value, at: &str) -> String {
    let value = item.pointer(at).unwrap_or(&Value::Null);
    plain(at.rsplit('/').next().unwrap_or_default(), value)
}

fn plain(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match number.as_i64() {
            Some(0) if name.ends_with("_ms") => "-".to_owned(),
            Some(time) if name.ends_with("_ms") => local_time(time),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            // Reasons and the like are known by their names.
            let named = |one: &Value| plain("", one.get("name").unwrap_or(one));
            list.iter().map(named).collect::<Vec<_>>().join(", ")
        }
        Value::Object(_) => value.to_string(),
    }
}

fn spread(path: &str, value: &Value, depth: usize, lines: &mut Vec<String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) if !map.is_empty() && depth < DEEPEST => {
            for (key, value) in map {
                spread(&below(key), value, depth + 1, lines);
            }
        }
        Value::Array(list)
            if depth < DEEPEST && list.iter().any(|one| one.is_object() || one.is_array()) =>
        {
            for (number, value) in list.iter().enumerate() {
                spread(&below(&number.to_string()), value, depth + 1, lines);
            }
        }
        _ => {
            let name = path.rsplit('.').next().unwrap_or_default();
            lines.push(format!("{path}: {}", plain(name, value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_are_spread_and_an_abyss_is_not_followed() {
        let mut lines = Vec::new();
        let value = json!({ "a": { "b": [1, "x"] }, "c": [{ "d": true }], "e": null });
        spread("", &value, 0, &mut lines);
        assert_eq!(lines, ["a.b: 1, x", "c.0.d: yes", "e: -"]);
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({ "a": deep });
        }
        lines.clear();
        spread("", &deep, 0, &mut lines);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn cells_are_read_by_their_names() {
        let item = json!({ "n": 3, "at_ms": 0, "why": [{ "name": "silent", "x": 1 }], "o": {} });
        assert_eq!(
            ["/n", "/at_ms", "/why", "/o", "/none"].map(|at| cell(&item, at)),
            ["3", "-", "silent", "{}", "-"]
        );
    }
}
