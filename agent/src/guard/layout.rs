//! The offset table of the self-protection programs, from the running kernel's BTF.
//!
//! Invariant: an absent, ambiguous or resized member is [`ABSENT`] and named; the programs that
//! need it are not loaded.

use std::io::Read;

use holdfast_common::guard::{ABSENT, FIELD_COUNT, FIELDS, Field};

use crate::sensor::btf::{Btf, MAX_SIZE};

const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// What the running kernel's structures look like.
pub(super) struct Layout {
    /// Byte offsets by [`Field`] number.
    pub(super) offsets: [u32; FIELD_COUNT],
    missing: Vec<(Field, String)>,
}

impl Layout {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// Why nothing can be looked up.
    pub(super) fn of_running_kernel() -> Result<Self, String> {
        let mut blob = Vec::new();
        std::fs::File::open(KERNEL)
            .and_then(|file| file.take(MAX_SIZE as u64 + 1).read_to_end(&mut blob))
            .map_err(|error| format!("{KERNEL}: {error}"))?;
        Self::from_btf(&blob)
    }

    fn from_btf(blob: &[u8]) -> Result<Self, String> {
        let btf = Btf::parse(blob).map_err(|error| format!("{KERNEL}: {error}"))?;
        let mut layout = Self { offsets: [ABSENT; FIELD_COUNT], missing: Vec::new() };
        for (field, structure, path, size) in FIELDS {
            match btf.member(structure, path) {
                Ok(member) if *size == 0 || member.size == *size => {
                    layout.offsets[*field as usize] = member.offset;
                }
                Ok(member) => {
                    let why = format!("{structure}.{path}: {} bytes, not {size}", member.size);
                    layout.missing.push((*field, why));
                }
                Err(error) => layout.missing.push((*field, format!("{structure}.{path}: {error}"))),
            }
        }
        Ok(layout)
    }

    /// The missing ones among `fields`, for people.
    pub(super) fn missing_of(&self, fields: &[Field]) -> Vec<String> {
        let named = self.missing.iter().filter(|(field, _)| fields.contains(field));
        named.map(|(_, text)| text.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_type_information_are_refused() {
        assert!(Layout::from_btf(b"not BTF at all").is_err());
    }

    #[test]
    fn the_running_kernel_has_every_field() {
        if !std::path::Path::new(KERNEL).exists() {
            return;
        }
        let layout = Layout::of_running_kernel().expect("the kernel's own BTF");
        let all: Vec<Field> = FIELDS.iter().map(|(field, ..)| *field).collect();
        assert_eq!(layout.missing_of(&all), Vec::<String>::new());
    }
}
