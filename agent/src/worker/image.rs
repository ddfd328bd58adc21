//! The form in which a rules folder travels to a worker: one run of bytes, files one after the
//! other. Written by the agent, read inside the cage.
//!
//! `"HFRULES1"`, then for each file: length of its name (u16), length of its content (u64),
//! name (UTF-8), content; integers little-endian.

use bytes::Buf;

/// What an image begins with.
pub const MAGIC: &[u8; 8] = b"HFRULES1";

/// What a rule file holds, told by its name's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKind {
    /// `*.sha256`
    Sha256,
    /// `*.sha1`
    Sha1,
    /// `*.md5`
    Md5,
    /// `*.yar`, `*.yara`
    Yara,
}

impl RuleKind {
    /// By the ending of a file's name; `None` when it is none of ours.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "sha256" => Some(Self::Sha256),
            "sha1" => Some(Self::Sha1),
            "md5" => Some(Self::Md5),
            "yar" | "yara" => Some(Self::Yara),
            _ => None,
        }
    }
}

/// One file of an image.
#[derive(Debug, PartialEq, Eq)]
pub struct RuleFile<'a> {
    /// Its name without folder.
    pub name: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
}

/// The bytes in front of a file's content.
///
/// Names above 65,535 bytes do not exist on Linux (`NAME_MAX` is 255); they are cut.
#[must_use]
pub fn entry_header(name: &str, content_len: u64) -> Vec<u8> {
    let name_len = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let mut header = name_len.to_le_bytes().to_vec();
    header.extend(content_len.to_le_bytes());
    header.extend(&name.as_bytes()[..usize::from(name_len)]);
    header
}

/// The files of an image, in order; `None` when it is not one.
#[must_use]
pub fn read(image: &[u8]) -> Option<Vec<RuleFile<'_>>> {
    let mut rest = image.strip_prefix(MAGIC)?;
    let mut files = Vec::new();
    while !rest.is_empty() {
        let name_len = usize::from(rest.try_get_u16_le().ok()?);
        let content_len = usize::try_from(rest.try_get_u64_le().ok()?).ok()?;
        let (name, after) = rest.split_at_checked(name_len)?;
        let (content, after) = after.split_at_checked(content_len)?;
        files.push(RuleFile { name: std::str::from_utf8(name).ok()?, content });
        rest = after;
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_gives_back_its_files_and_no_shortened_one_is_read() {
        let mut image = MAGIC.to_vec();
        for (name, content) in [("a.md5", &b"x"[..]), ("b.yar", b"")] {
            image.extend(entry_header(name, content.len() as u64));
            image.extend(content);
        }
        let files = read(&image).expect("whole image");
        assert_eq!(files[0], RuleFile { name: "a.md5", content: b"x" });
        assert_eq!(files[1], RuleFile { name: "b.yar", content: b"" });
        let first_file = MAGIC.len() + 2 + 8 + 5 + 1;
        for cut in (0..image.len()).filter(|cut| ![MAGIC.len(), first_file].contains(cut)) {
            assert_eq!(read(&image[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn kinds_follow_the_ending() {
        assert_eq!(RuleKind::of("a.b.sha256"), Some(RuleKind::Sha256));
        assert_eq!(RuleKind::of("a.yara"), Some(RuleKind::Yara));
        assert_eq!(RuleKind::of("a.yara.bak"), None);
        assert_eq!(RuleKind::of("yara"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_images_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[&MAGIC[..], &tail].concat());
        }
    }
}
