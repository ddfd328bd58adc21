//! A query's tree as one full-text expression, and the pages of events that it finds.
//!
//! INVARIANT: expressions are made of words that hold letters and digits only (`index::words`,
//! `index::fact`) and of signs that stand here; they, and all other values, travel as parameters.

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::index::{EVERY, TextField, fact};
use super::numbers::{numbers, time_of};
use super::{Backend, Store, StoreError, column, failed, id_column};
use crate::query::Expr;

/// Which events, newest first.
#[derive(Debug, Clone)]
pub struct Search {
    /// What must hold.
    pub query: Expr,
    /// From this time on, milliseconds since the epoch.
    pub from_ms: i64,
    /// Before this time.
    pub until_ms: i64,
    /// Only events before this one: the last of the page before.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place; orders by time.
    pub number: i64,
    /// When it happened by the host's clock, milliseconds since the epoch.
    pub time_ms: i64,
    /// Its id.
    pub id: Uuid,
    /// The host that sent it.
    pub host: Uuid,
    /// That host's name now.
    pub host_name: String,
    /// What it is.
    pub kind: String,
    /// When it came.
    pub received_ms: i64,
    /// Its JSON, as it came.
    pub body: String,
}

/// How a query is answered.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Everything in the period.
    All,
    /// By the full-text index.
    Match(String),
}

fn plan(query: &Expr, backend: Backend) -> Plan {
    if *query == Expr::And(Vec::new()) {
        return Plan::All;
    }
    Plan::Match(match backend {
        Backend::Sqlite => fts5(query),
        Backend::Postgres => tsquery(query),
    })
}

/// FTS5's expression. Its NOT stands between two operands, so every NOT is "every but".
fn fts5(expr: &Expr) -> String {
    match expr {
        Expr::And(list) if list.is_empty() => format!("{{facts}} : \"{EVERY}\""),
        Expr::And(list) => {
            let not = |expr: &&Expr| matches!(expr, Expr::Not(_));
            let mut positive: Vec<_> = list.iter().filter(|e| !not(e)).map(fts5).collect();
            if positive.is_empty() {
                positive.push(fts5(&Expr::And(Vec::new())));
            }
            let negative: Vec<_> = list
                .iter()
                .filter_map(|expr| match expr {
                    Expr::Not(inner) => Some(fts5(inner)),
                    _ => None,
                })
                .collect();
            let positive = positive.join(" AND ");
            if negative.is_empty() {
                format!("({positive})")
            } else {
                format!("(({positive}) NOT ({}))", negative.join(" OR "))
            }
        }
        Expr::Or(list) => {
            format!("({})", list.iter().map(fts5).collect::<Vec<_>>().join(" OR "))
        }
        Expr::Not(inner) => format!("({{facts}} : \"{EVERY}\" NOT {})", fts5(inner)),
        Expr::Text { field, words, prefix } => {
            let columns = match field {
                Some(TextField::Cmdline) => "cmdline",
                Some(TextField::Path) => "path",
                Some(TextField::Other) => "other",
                None => "cmdline path other",
            };
            let star = if *prefix { " *" } else { "" };
            format!("({{{columns}}} : \"{}\"{star})", words.join(" "))
        }
        Expr::Fact { field, value } => format!("({{facts}} : \"{}\")", fact(*field, value)),
    }
}

/// PostgreSQL's `tsquery`, as its text.
fn tsquery(expr: &Expr) -> String {
    let join = |list: &[Expr], sign: &str| {
        format!("({})", list.iter().map(tsquery).collect::<Vec<_>>().join(sign))
    };
    match expr {
        Expr::And(list) if list.is_empty() => format!("'{EVERY}':D"),
        Expr::And(list) => join(list, " & "),
        Expr::Or(list) => join(list, " | "),
        Expr::Not(inner) => format!("!({})", tsquery(inner)),
        Expr::Text { field, words, prefix } => {
            let weights = match field {
                Some(TextField::Cmdline) => "A",
                Some(TextField::Path) => "B",
                Some(TextField::Other) => "C",
                None => "ABC",
            };
            let last = words.len().saturating_sub(1);
            let words: Vec<_> = words
                .iter()
                .enumerate()
                .map(|(index, word)| {
                    let star = if *prefix && index == last { "*" } else { "" };
                    format!("'{word}':{star}{weights}")
                })
                .collect();
            format!("({})", words.join(" <-> "))
        }
        Expr::Fact { field, value } => format!("'{}':D", fact(*field, value)),
    }
}

const COLUMNS: &str = "e.number AS number, e.id AS id, h.id AS host, h.name AS host_name, \
                       e.kind AS kind, e.received_ms AS received_ms, e.body AS body";

/// PostgreSQL: whether an event has the words of the fourth parameter.
const WORDS: &str = "e.words @@ CAST($4 AS TEXT)::tsquery";
/// So many of the newest events are looked through one by one, some 5 us each.
const NEWEST: i64 = 20_000;
/// Fewer than so many are found by the index of words and then sorted.
const FEW: i64 = 10_000;

impl Store {
    /// One page of events.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn event_search(&self, search: &Search) -> Result<Vec<StoredEvent>, StoreError> {
        let (from, until) = numbers(search.from_ms, search.until_ms);
        let until = search.before.map_or(until, |before| before.min(until));
        let limit = i64::from(search.limit);
        match plan(&search.query, self.backend) {
            Plan::All => {
                let sql = format!(
                    "SELECT {COLUMNS} FROM events e JOIN hosts h ON h.number = e.host \
                     WHERE e.number >= $1 AND e.number < $2 ORDER BY e.number DESC LIMIT $3"
                );
                self.rows(sql, (from, until), limit, None).await
            }
            Plan::Match(expression) => match self.backend {
                Backend::Sqlite => {
                    let sql = format!(
                        "SELECT {COLUMNS} FROM events_text t JOIN events e ON e.number = t.rowid \
                         JOIN hosts h ON h.number = e.host WHERE t.rowid >= $1 AND t.rowid < $2 \
                         AND events_text MATCH $4 ORDER BY t.rowid DESC LIMIT $3"
                    );
                    self.rows(sql, (from, until), limit, Some(&expression)).await
                }
                Backend::Postgres => self.match_postgres(&expression, (from, until), limit).await,
            },
        }
    }

    /// PostgreSQL's planner guesses how many events have these words, and a wrong guess costs it a
    /// walk over all events. So the newest are looked through one by one; what they do not answer is
    /// rarer, and is asked of the index of words, unless it was frequent once.
    async fn match_postgres(
        &self,
        expression: &str,
        (from, until): (i64, i64),
        limit: i64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        // The inner limit also keeps the planner from the index of words.
        let newest = format!(
            "SELECT {COLUMNS} FROM (SELECT * FROM events WHERE number >= $1 AND number < $2 \
             ORDER BY number DESC LIMIT {NEWEST}) e JOIN hosts h ON h.number = e.host \
             WHERE {WORDS} ORDER BY e.number DESC LIMIT $3"
        );
        let mut found = self.rows(newest, (from, until), limit, Some(expression)).await?;
        let edge = format!(
            "SELECT number FROM events WHERE number >= $1 AND number < $2 \
             ORDER BY number DESC OFFSET {} LIMIT 1",
            NEWEST - 1
        );
        let more = limit - i64::try_from(found.len()).unwrap_or(limit);
        let edge = if more > 0 { self.number(edge, (from, until), None).await? } else { None };
        let Some(edge) = edge else { return Ok(found) };
        let few = format!(
            "SELECT COUNT(*) AS number FROM (SELECT 1 FROM events e \
             WHERE e.number >= $1 AND e.number < $2 AND {WORDS} LIMIT {FEW}) few"
        );
        let few = self.number(few, (from, edge), Some(expression)).await?;
        let rest = if few.is_some_and(|few| few < FEW) {
            format!(
                "WITH found AS MATERIALIZED (SELECT e.number FROM events e \
                 WHERE e.number >= $1 AND e.number < $2 AND {WORDS}), \
                 last AS MATERIALIZED (SELECT number FROM found ORDER BY number DESC LIMIT $3) \
                 SELECT {COLUMNS} FROM last JOIN events e ON e.number = last.number \
                 JOIN hosts h ON h.number = e.host ORDER BY e.number DESC"
            )
        } else {
            format!(
                "SELECT {COLUMNS} FROM events e JOIN hosts h ON h.number = e.host \
                 WHERE e.number >= $1 AND e.number < $2 AND {WORDS} \
                 ORDER BY e.number DESC LIMIT $3"
            )
        };
        found.extend(self.rows(rest, (from, edge), more, Some(expression)).await?);
        Ok(found)
    }

    /// Events by a statement that takes first number, end, limit and, maybe, an expression.
    async fn rows(
        &self,
        sql: String,
        (from, until): (i64, i64),
        limit: i64,
        expression: Option<&str>,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        // Only constants of this file are in it.
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(from).bind(until).bind(limit);
        if let Some(expression) = expression {
            query = query.bind(expression.to_owned());
        }
        let rows = query.fetch_all(&self.readers).await.map_err(failed("search events"))?;
        rows.iter().map(event).collect()
    }

    /// One number by a statement that takes first number, end and, maybe, an expression as the
    /// fourth.
    async fn number(
        &self,
        sql: String,
        (from, until): (i64, i64),
        expression: Option<&str>,
    ) -> Result<Option<i64>, StoreError> {
        // Only constants of this file are in it.
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(from).bind(until);
        if let Some(expression) = expression {
            query = query.bind(0_i64).bind(expression.to_owned());
        }
        let row = query.fetch_optional(&self.readers).await.map_err(failed("search events"))?;
        row.as_ref().map(|row| column(row, "number")).transpose()
    }

    /// One event by its place.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn event_get(&self, number: i64) -> Result<Option<StoredEvent>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM events e JOIN hosts h ON h.number = e.host WHERE e.number = $1"
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(number)
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read an event"))?;
        row.as_ref().map(event).transpose()
    }

    /// The events of an alert, newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alert_event_list(
        &self,
        alert: i64,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM alert_events a JOIN events e ON e.number = a.event \
             JOIN hosts h ON h.number = e.host \
             WHERE a.alert = $1 AND a.event < $2 ORDER BY a.event DESC LIMIT $3"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(alert)
            .bind(before.unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("read an alert's events"))?;
        rows.iter().map(event).collect()
    }
}

fn event(row: &sqlx::any::AnyRow) -> Result<StoredEvent, StoreError> {
    let number = column(row, "number")?;
    Ok(StoredEvent {
        number,
        time_ms: time_of(number),
        id: id_column(row, "id")?,
        host: id_column(row, "host")?,
        host_name: column(row, "host_name")?,
        kind: column(row, "kind")?,
        received_ms: column(row, "received_ms")?,
        body: column(row, "body")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse;

    #[test]
    fn a_query_becomes_words_and_signs_only() {
        let query = parse("cmdline:\"a'b\\\") OR 1=1 --\" -path:x* (kind:exec OR text:é)");
        let query = query.expect("query");
        let fts = fts5(&query);
        assert!(fts.starts_with("((({cmdline} : \"a b or 1 1\") AND "), "{fts}");
        assert!(fts.ends_with(" NOT (({path} : \"x\" *)))"), "{fts}");
        let ts = tsquery(&query);
        assert!(ts.starts_with("(('a':A <-> 'b':A <-> 'or':A <-> '1':A <-> '1':A) & "), "{ts}");
        assert!(ts.contains("!(('x':*B))"), "{ts}");
    }
}
