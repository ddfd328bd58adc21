//! The offset table that the eBPF programs get: every field of [`holdfast_common::abi::FIELDS`],
//! looked up in the running kernel's BTF.
//!
//! Invariant: an absent, ambiguous or resized member is [`ABSENT`] and named in `missing`; the
//! others stand.

use std::io::Read;

use holdfast_common::abi::{ABSENT, FIELD_COUNT, FIELDS, Field};

use super::btf::{Btf, MAX_SIZE};

const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// What the running kernel's structures look like.
pub struct Layout {
    /// Byte offsets by [`Field`] number.
    pub offsets: [u32; FIELD_COUNT],
    /// What is missing, for people: `structure.member: why`.
    pub missing: Vec<(Field, String)>,
    /// Why nothing could be looked up at all.
    pub problem: Option<String>,
}

impl Layout {
    /// Reads the running kernel's BTF.
    pub fn of_running_kernel() -> Self {
        let mut blob = Vec::new();
        let read = std::fs::File::open(KERNEL)
            .and_then(|file| file.take(MAX_SIZE as u64 + 1).read_to_end(&mut blob));
        match read {
            Ok(_) => Self::from_btf(&blob),
            Err(error) => Self::unknown(format!("{KERNEL}: {error}")),
        }
    }

    /// True when the kernel has this field.
    pub fn has(&self, field: Field) -> bool {
        self.offsets[field as usize] != ABSENT
    }

    /// The missing ones among `fields`, for people.
    pub fn missing_of(&self, fields: &[Field]) -> Vec<String> {
        let named = self.missing.iter().filter(|(field, _)| fields.contains(field));
        named.map(|(_, text)| text.clone()).collect()
    }

    fn from_btf(blob: &[u8]) -> Self {
        let btf = match Btf::parse(blob) {
            Ok(btf) => btf,
            Err(error) => return Self::unknown(format!("{KERNEL}: {error}")),
        };
        let mut layout =
            Self { offsets: [ABSENT; FIELD_COUNT], missing: Vec::new(), problem: None };
        for (field, structure, path, size) in FIELDS {
            match find(&btf, structure, path, *size) {
                Ok(offset) => layout.offsets[*field as usize] = offset,
                Err(why) => layout.missing.push((*field, format!("{structure}.{path}: {why}"))),
            }
        }
        layout
    }

    fn unknown(problem: String) -> Self {
        let missing = FIELDS.iter().map(|(field, structure, path, _)| {
            (*field, format!("{structure}.{path}: no type information"))
        });
        Self { offsets: [ABSENT; FIELD_COUNT], missing: missing.collect(), problem: Some(problem) }
    }
}

/// Offset of the first of several names (`a|b`) that is there with the right size (0: any).
fn find(btf: &Btf<'_>, structure: &str, names: &str, size: u32) -> Result<u32, String> {
    let mut why = String::new();
    for name in names.split('|') {
        match btf.member(structure, name) {
            Ok(member) if size == 0 || member.size == size => return Ok(member.offset),
            Ok(member) => why = format!("{} bytes, not {size}", member.size),
            Err(error) if why.is_empty() => why = error.to_string(),
            Err(_) => {}
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_type_information_every_field_is_absent_and_named() {
        let layout = Layout::from_btf(b"not BTF at all");
        assert!(layout.problem.is_some());
        assert_eq!(layout.missing.len(), FIELD_COUNT);
        assert!(!layout.has(Field::TaskMm));
    }

    #[test]
    fn each_field_stands_at_its_own_number() {
        for (index, (field, ..)) in FIELDS.iter().enumerate() {
            assert_eq!(*field as usize, index);
        }
    }
}
