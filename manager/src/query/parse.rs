//! Pieces in, the tree out. Recursive; the depth is bounded.

use super::lexer::{Piece, Token};
use super::{Expr, MAX_DEPTH, MAX_TERMS, QueryError, term};

pub(super) fn parse(pieces: &[Piece]) -> Result<Expr, QueryError> {
    let mut cursor = Cursor { pieces, at: 0, terms: 0 };
    let expr = cursor.either(0)?;
    match cursor.peek() {
        None => Ok(expr),
        Some(piece) => Err(QueryError::new(piece.position, "this bracket closes nothing")),
    }
}

struct Cursor<'a> {
    pieces: &'a [Piece],
    at: usize,
    terms: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<&'a Piece> {
        self.pieces.get(self.at)
    }

    fn peek_is(&self, token: &Token) -> bool {
        self.peek().is_some_and(|piece| piece.token == *token)
    }

    fn next(&mut self) -> Option<&'a Piece> {
        let piece = self.pieces.get(self.at)?;
        self.at += 1;
        Some(piece)
    }

    fn either(&mut self, depth: usize) -> Result<Expr, QueryError> {
        let mut list = Vec::new();
        loop {
            let all = self.all(depth)?;
            let or = self.peek().filter(|piece| piece.token == Token::Or);
            let empty = all == Expr::And(Vec::new());
            match or {
                Some(or) if empty => {
                    return Err(QueryError::new(or.position, "nothing before OR"));
                }
                None if empty && !list.is_empty() => {
                    let or = &self.pieces[self.at - 1];
                    return Err(QueryError::new(or.position, "nothing after OR"));
                }
                _ => list.push(all),
            }
            if or.is_none() {
                break;
            }
            self.at += 1;
        }
        Ok(match list.pop() {
            Some(only) if list.is_empty() => only,
            last => {
                list.extend(last);
                Expr::Or(list)
            }
        })
    }

    fn all(&mut self, depth: usize) -> Result<Expr, QueryError> {
        let mut list = Vec::new();
        while let Some(piece) = self.peek() {
            match piece.token {
                Token::Or | Token::Close => break,
                Token::And => {
                    self.at += 1;
                    let behind = self.peek().map(|piece| &piece.token);
                    if list.is_empty()
                        || matches!(behind, None | Some(Token::Or | Token::Close | Token::And))
                    {
                        return Err(QueryError::new(
                            piece.position,
                            "AND needs a term on each side",
                        ));
                    }
                }
                Token::Open | Token::Not | Token::Term { .. } => list.push(self.one(depth)?),
            }
        }
        Ok(match list.pop() {
            Some(only) if list.is_empty() => only,
            last => {
                list.extend(last);
                Expr::And(list)
            }
        })
    }

    fn one(&mut self, depth: usize) -> Result<Expr, QueryError> {
        let Some(piece) = self.next() else {
            return Ok(Expr::And(Vec::new()));
        };
        if depth >= MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} brackets or NOT in each other");
            return Err(QueryError::new(piece.position, message));
        }
        match &piece.token {
            Token::Open => {
                let inner = self.either(depth + 1)?;
                if !self.peek_is(&Token::Close) {
                    return Err(QueryError::new(piece.position, "this bracket is not closed"));
                }
                self.at += 1;
                Ok(inner)
            }
            Token::Not => match self.peek().map(|piece| &piece.token) {
                Some(Token::Open | Token::Not | Token::Term { .. }) => {
                    Ok(Expr::Not(Box::new(self.one(depth + 1)?)))
                }
                _ => Err(QueryError::new(piece.position, "nothing after NOT")),
            },
            Token::Term { field, value } => {
                self.terms += 1;
                if self.terms > MAX_TERMS {
                    let message = format!("more than {MAX_TERMS} terms");
                    return Err(QueryError::new(piece.position, message));
                }
                term(piece.position, field.as_deref(), value)
            }
            Token::Close | Token::Or | Token::And => {
                Err(QueryError::new(piece.position, "a term is missing here"))
            }
        }
    }
}
