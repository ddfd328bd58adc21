//! The query language: `host:web1 kind:exec cmdline:"tcpdump -c"`.
//!
//! Terms stand side by side (all must hold), or with `OR` between them; `-` or `NOT` before a term
//! turns it round; brackets group. `field:value` looks in one field, a value alone in all text.
//! Quotes keep a value together. In text fields (`cmdline`, `path`, `text`) the value's words must
//! follow each other, and a `*` at its end lets the last word go on; other fields match as a whole.
//! Case never matters. Pure: text in, a tree or the place of the error out.

use crate::store::index::{FactField, TextField, words};

mod lexer;
mod parse;

/// Characters of a query.
pub const MAX_LENGTH: usize = 2048;
/// Terms of a query.
pub const MAX_TERMS: usize = 64;
/// Brackets in brackets.
pub const MAX_DEPTH: usize = 16;

/// What must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// All of them; of none: everything.
    And(Vec<Expr>),
    /// One of them.
    Or(Vec<Expr>),
    /// Not this.
    Not(Box<Expr>),
    /// These words in their order.
    Text {
        /// In one field, or in any of text.
        field: Option<TextField>,
        /// Never empty.
        words: Vec<String>,
        /// The last word may go on.
        prefix: bool,
    },
    /// A field has this value.
    Fact {
        /// Which.
        field: FactField,
        /// Its value.
        value: String,
    },
}

/// What is wrong with a query, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {}: {message}", .position + 1)]
pub struct QueryError {
    /// Character that it begins at, from 0.
    pub position: usize,
    /// What.
    pub message: String,
}

impl QueryError {
    fn new(position: usize, message: impl Into<String>) -> Self {
        Self { position, message: message.into() }
    }
}

/// Reads a query.
///
/// # Errors
/// [`QueryError`] with the place.
pub fn parse(text: &str) -> Result<Expr, QueryError> {
    if let Some((position, _)) = text.char_indices().enumerate().nth(MAX_LENGTH) {
        return Err(QueryError::new(position, format!("longer than {MAX_LENGTH} characters")));
    }
    parse::parse(&lexer::lex(text)?)
}

/// One term.
fn term(position: usize, field: Option<&str>, value: &str) -> Result<Expr, QueryError> {
    let text_field = match field {
        None | Some("text") => Some(None),
        Some("cmdline") => Some(Some(TextField::Cmdline)),
        Some("path") => Some(Some(TextField::Path)),
        Some(_) => None,
    };
    if let Some(field) = text_field {
        let words = words(value);
        if words.is_empty() {
            return Err(QueryError::new(position, "no letter and no digit to look for"));
        }
        return Ok(Expr::Text { field, words, prefix: value.ends_with('*') });
    }
    let name = field.unwrap_or_default();
    let known = FactField::ALL.iter().find(|(_, known)| *known == name);
    let Some((field, _)) = known else {
        let mut names: Vec<_> = FactField::ALL.iter().map(|(_, name)| *name).collect();
        names.extend(["cmdline", "path", "text"]);
        let message = format!("no field is called {name:?}; there are {}", names.join(", "));
        return Err(QueryError::new(position, message));
    };
    if value.is_empty() {
        return Err(QueryError::new(position, format!("{name}: needs a value")));
    }
    if value.ends_with('*') {
        let message = format!("{name}: matches as a whole, without *");
        return Err(QueryError::new(position, message));
    }
    Ok(Expr::Fact { field: *field, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fact(field: FactField, value: &str) -> Expr {
        Expr::Fact { field, value: value.to_owned() }
    }

    #[test]
    fn terms_side_by_side_must_all_hold() {
        let expected = Expr::And(vec![
            fact(FactField::Host, "web1"),
            fact(FactField::Kind, "exec"),
            Expr::Text {
                field: Some(TextField::Cmdline),
                words: vec!["tcpdump".to_owned(), "c".to_owned()],
                prefix: false,
            },
        ]);
        assert_eq!(parse("host:web1 kind:exec cmdline:\"tcpdump -c\""), Ok(expected));
        assert_eq!(parse("  "), Ok(Expr::And(vec![])));
    }

    #[test]
    fn or_not_and_brackets_group() {
        let (a, b, c) =
            (fact(FactField::User, "a"), fact(FactField::User, "b"), fact(FactField::User, "c"));
        let either = Expr::Or(vec![a.clone(), b.clone()]);
        let expected = Expr::And(vec![either.clone(), Expr::Not(Box::new(c.clone()))]);
        assert_eq!(parse("(user:a OR user:b) -user:c"), Ok(expected.clone()));
        assert_eq!(parse("(user:a OR user:b) AND NOT user:c"), Ok(expected));
        let loose = Expr::Or(vec![a, Expr::And(vec![b, c])]);
        assert_eq!(parse("user:a OR user:b user:c"), Ok(loose));
    }

    #[test]
    fn errors_name_the_place() {
        for (query, position, part) in [
            ("user:a hots:b", 7, "no field is called \"hots\""),
            ("kind:", 0, "needs a value"),
            ("(user:a", 0, "is not closed"),
            ("user:a)", 6, "closes nothing"),
            ("cmdline:\"abc", 8, "quote is not closed"),
            ("user:a OR", 7, "nothing after OR"),
            ("OR user:a", 0, "nothing before OR"),
            ("NOT", 0, "nothing after NOT"),
            ("user:ro*", 0, "without *"),
            ("ä \"--\"", 2, "no letter"),
        ] {
            let error = parse(query).expect_err(query);
            assert_eq!(error.position, position, "{query}: {error}");
            assert!(error.message.contains(part), "{query}: {error}");
        }
    }

    #[test]
    fn a_query_has_bounds() {
        assert!(parse(&"(".repeat(40)).expect_err("deep").message.contains("brackets"));
        assert!(parse(&"a ".repeat(65)).expect_err("many").message.contains("terms"));
        assert!(parse(&"-".repeat(1000)).is_err());
        assert!(parse(&format!("{}a", "NOT ".repeat(500))).is_err());
        assert!(parse(&"a".repeat(3000)).expect_err("long").message.contains("longer"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z:()\"* -]{0,60}|\\PC{0,60}") {
            let _ = parse(&text);
        }
    }
}
