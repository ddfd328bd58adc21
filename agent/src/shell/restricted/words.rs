//! A line as words. Blanks part them; `'…'` and `"…"` keep together what they enclose; `\` takes the
//! next sign as it is, and `\xNN` is a byte (not within `'…'`). Every other sign stands for itself:
//! nothing is expanded, no sign ends a command, begins another or names a file.

/// Splits a line.
///
/// # Errors
/// What is open at its end.
pub(super) fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote: Option<u8> = None;
    let mut rest = line.iter().copied();
    while let Some(sign) = rest.next() {
        match (sign, quote) {
            (sign, Some(open)) if sign == open => quote = None,
            (b'\\', None | Some(b'"')) => {
                let next = rest.next().ok_or("a \\ with nothing behind it")?;
                let byte = if next == b'x' { hex(rest.next(), rest.next())? } else { next };
                word.get_or_insert_default().push(byte);
            }
            (sign, Some(_)) => word.get_or_insert_default().push(sign),
            (b'\'' | b'"', None) => {
                quote = Some(sign);
                word.get_or_insert_default();
            }
            (b' ' | b'\t' | b'\r', None) => words.extend(word.take()),
            (sign, None) => word.get_or_insert_default().push(sign),
        }
    }
    if quote.is_some() {
        return Err("a quote is open at the end of the line");
    }
    words.extend(word);
    if words.iter().flatten().any(|byte| *byte == 0) {
        return Err("no name and no word has a NUL");
    }
    Ok(words)
}

fn hex(first: Option<u8>, second: Option<u8>) -> Result<u8, &'static str> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let pair = digit(first).zip(digit(second)).map(|(high, low)| high * 16 + low);
    pair.and_then(|byte| u8::try_from(byte).ok()).ok_or("\\x wants two hex digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        let words = split(line.as_bytes()).expect(line);
        words.into_iter().map(|word| String::from_utf8_lossy(&word).into_owned()).collect()
    }

    #[test]
    fn signs_that_shells_know_stand_for_themselves() {
        assert_eq!(
            texts("cat a;id | `id` $(id) $HOME * ? > x && y & #z ~"),
            [
                "cat", "a;id", "|", "`id`", "$(id)", "$HOME", "*", "?", ">", "x", "&&", "y", "&",
                "#z", "~"
            ]
        );
    }

    #[test]
    fn quotes_keep_words_together_and_bytes_can_be_typed() {
        assert_eq!(
            texts(r#"a 'b c' "d \"e" f\ g '\x41' "" h'i'j"#),
            ["a", "b c", "d \"e", "f g", "\\x41", "", "hij"]
        );
        assert_eq!(split(br"\xff\x0a").expect("bytes"), [vec![0xff, b'\n']]);
        assert_eq!(texts("   "), [""; 0]);
    }

    #[test]
    fn what_is_open_at_the_end_is_an_error() {
        for bad in ["'a", "\"a", "a\\", "\\x4", "\\xzz", "\\x00", "a\0b"] {
            assert!(split(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
