//! Cuts a query into brackets, words of the language and terms, each with its place.

use super::QueryError;

/// What a piece is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Open,
    Close,
    Or,
    And,
    Not,
    Term { field: Option<String>, value: String },
}

/// A piece and the character that it begins at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) position: usize,
    pub(super) token: Token,
}

pub(super) fn lex(text: &str) -> Result<Vec<Piece>, QueryError> {
    let chars: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let position = at;
        let token = match c {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '(' => single(Token::Open, &mut at),
            ')' => single(Token::Close, &mut at),
            // `-` turns round what follows it at once; alone, or within a word, it is text.
            '-' if chars.get(at + 1).is_some_and(|next| !next.is_whitespace()) => {
                single(Token::Not, &mut at)
            }
            _ => term(&chars, &mut at)?,
        };
        pieces.push(Piece { position, token });
    }
    Ok(pieces)
}

fn single(token: Token, at: &mut usize) -> Token {
    *at += 1;
    token
}

fn term(chars: &[char], at: &mut usize) -> Result<Token, QueryError> {
    let name = chars[*at..].iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').count();
    let field = (name > 0 && chars.get(*at + name) == Some(&':'))
        .then(|| chars[*at..*at + name].iter().collect::<String>().to_lowercase());
    if field.is_some() {
        *at += name + 1;
    }
    if chars.get(*at) == Some(&'"') {
        return Ok(Token::Term { field, value: quoted(chars, at)? });
    }
    let ends = |c: &char| c.is_whitespace() || matches!(c, '(' | ')' | '"');
    let length = chars[*at..].iter().take_while(|c| !ends(c)).count();
    let value: String = chars[*at..*at + length].iter().collect();
    *at += length;
    Ok(match (field, value.as_str()) {
        (None, "OR") => Token::Or,
        (None, "AND") => Token::And,
        (None, "NOT") => Token::Not,
        (field, _) => Token::Term { field, value },
    })
}

/// A value in quotes; `\"` and `\\` stand for themselves. A `*` behind the quotes belongs to it.
fn quoted(chars: &[char], at: &mut usize) -> Result<String, QueryError> {
    let start = *at;
    *at += 1;
    let mut value = String::new();
    loop {
        match (chars.get(*at), chars.get(*at + 1)) {
            (None, _) => return Err(QueryError::new(start, "this quote is not closed")),
            (Some('\\'), Some(c @ ('"' | '\\'))) => {
                value.push(*c);
                *at += 2;
            }
            (Some('"'), behind) => {
                *at += 1;
                if behind == Some(&'*') {
                    value.push('*');
                    *at += 1;
                }
                return Ok(value);
            }
            (Some(c), _) => {
                value.push(*c);
                *at += 1;
            }
        }
    }
}
