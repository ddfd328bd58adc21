//! The EICAR test file, exactly as its publisher defines it and nothing more.
//!
//! Source: <https://www.eicar.org/download-anti-malware-testfile/>: the file starts with the 68
//! characters, may go on with white space (space, tab, LF, CR, Ctrl-Z), and is at most 128
//! characters long. A text that only mentions the string is not the test file.

/// The name that every product reports.
pub const NAME: &str = "Eicar-Test-File";

/// Longest test file, in bytes.
pub const MAX_LEN: usize = 128;

// In two halves, so that neither this source nor the program that it becomes holds the string.
const FIRST: &[u8] = br"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR";
const SECOND: &[u8] = b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*";

/// Whether this whole content is the test file.
#[must_use]
pub fn is_test_file(content: &[u8]) -> bool {
    content.len() <= MAX_LEN
        && content.strip_prefix(FIRST).and_then(|rest| rest.strip_prefix(SECOND)).is_some_and(
            |tail| tail.iter().all(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x1a)),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test_file() -> Vec<u8> {
        [FIRST, SECOND].concat()
    }

    fn with_tail(tail: &[u8]) -> Vec<u8> {
        [FIRST, SECOND, tail].concat()
    }

    #[test]
    fn the_68_bytes_alone_are_the_test_file() {
        assert_eq!(test_file().len(), 68);
        assert!(is_test_file(&test_file()));
        assert!(!is_test_file(&test_file()[..67]));
        assert!(!is_test_file(b""));
    }

    #[test]
    fn white_space_may_follow_up_to_128_bytes() {
        assert!(is_test_file(&with_tail(b" \t\n\r\x1a")));
        assert!(is_test_file(&with_tail(&[b' '; 60])));
        assert!(!is_test_file(&with_tail(&[b' '; 61])));
    }

    #[test]
    fn anything_else_around_it_is_another_file() {
        for tail in [&b"\0"[..], b"x", b"\x0b", b"\x0c", b"\xa0", b"\n."] {
            assert!(!is_test_file(&with_tail(tail)), "{tail:?}");
        }
        for head in [&b" "[..], b"\n", b"\xef\xbb\xbf", b"The test string is "] {
            assert!(!is_test_file(&[head, &test_file()].concat()), "{head:?}");
        }
        assert!(!is_test_file(&test_file().to_ascii_lowercase()));
    }
}
