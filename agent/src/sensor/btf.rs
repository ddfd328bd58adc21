//! A reader of the kernel's type information (BTF) that answers one question: at which offset,
//! and how large, is this member of this structure.
//!
//! Invariant: no input makes it panic, loop for ever or use more memory than a few bytes for
//! each type. Format: `Documentation/bpf/btf.rst`. Knows nothing of what the fields are for.

use std::collections::HashMap;

/// Largest blob that is read. The largest kernels have about 12 MB.
pub const MAX_SIZE: usize = 64 << 20;

const MAGIC: u16 = 0xeb9f;
const MAX_TYPES: usize = 4 << 20;
const MAX_DEPTH: u32 = 16;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Why a blob was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Shorter than its header says.
    #[error("BTF ends too early")]
    Truncated,
    /// Another magic number or version.
    #[error("not BTF of version 1 in this machine's byte order")]
    NotBtf,
    /// A kind that version 1 did not have when this was written.
    #[error("unknown BTF kind {0}")]
    UnknownKind(u32),
    /// More types or bytes than any kernel has.
    #[error("BTF is too large")]
    TooLarge,
}

/// Why a member has no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoMember {
    /// The structure is not there.
    #[error("no such structure")]
    NoStructure,
    /// It has no such member.
    #[error("no such member")]
    NoMember,
    /// Two structures of this name disagree.
    #[error("two structures of this name disagree")]
    Ambiguous,
    /// It is a bit field, or its type cannot be followed.
    #[error("not a whole number of bytes")]
    Unaddressable,
}

/// Where a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the structure's start.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
}

/// A parsed blob. Types are decoded when asked for.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Position of type `n + 1`; type 0 is `void`.
    positions: Vec<u32>,
    structures: HashMap<&'a [u8], Vec<u32>>,
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    kind_flag: bool,
    count: u32,
    /// A size or a type id, as the kind says.
    size_or_type: u32,
    /// Where the trailing data begins.
    rest: usize,
}

impl<'a> Btf<'a> {
    /// Indexes a blob such as `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// [`BtfError`] when it is not whole or not known.
    pub fn parse(blob: &'a [u8]) -> Result<Self, BtfError> {
        if blob.len() > MAX_SIZE {
            return Err(BtfError::TooLarge);
        }
        let magic = blob.get(..2).ok_or(BtfError::Truncated)?;
        if magic != MAGIC.to_ne_bytes() || blob.get(2) != Some(&1) {
            return Err(BtfError::NotBtf);
        }
        let header = word(blob, 4).ok_or(BtfError::Truncated)? as usize;
        let section = |offset_at: usize| -> Option<&'a [u8]> {
            let start = header.checked_add(word(blob, offset_at)? as usize)?;
            blob.get(start..start.checked_add(word(blob, offset_at + 4)? as usize)?)
        };
        let mut btf = Self {
            types: section(8).ok_or(BtfError::Truncated)?,
            strings: section(16).ok_or(BtfError::Truncated)?,
            positions: Vec::new(),
            structures: HashMap::new(),
        };
        btf.index()?;
        Ok(btf)
    }

    /// Finds a member by its path, e.g. `f_path.dentry`. Members of anonymous structures and
    /// unions count as their holder's.
    ///
    /// # Errors
    /// [`NoMember`] says what is missing.
    pub fn member(&self, structure: &str, path: &str) -> Result<Member, NoMember> {
        let candidates = self.structures.get(structure.as_bytes()).ok_or(NoMember::NoStructure)?;
        let mut found: Option<Result<Member, NoMember>> = None;
        for id in candidates {
            let member = self.walk(*id, path);
            match found {
                None => found = Some(member),
                Some(first) if first == member => {}
                Some(_) => return Err(NoMember::Ambiguous),
            }
        }
        found.unwrap_or(Err(NoMember::NoStructure))
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut position = 0;
        while position < self.types.len() {
            if self.positions.len() >= MAX_TYPES {
                return Err(BtfError::TooLarge);
            }
            let of_type = self.decode(position).ok_or(BtfError::Truncated)?;
            self.positions.push(u32::try_from(position).map_err(|_| BtfError::TooLarge)?);
            if matches!(of_type.kind, KIND_STRUCT | KIND_UNION)
                && let Some(name) = self.text(of_type.name).filter(|name| !name.is_empty())
            {
                let id = self.positions.len() as u32;
                self.structures.entry(name).or_default().push(id);
            }
            position = of_type
                .rest
                .checked_add(trailing(&of_type)?)
                .filter(|end| *end <= self.types.len())
                .ok_or(BtfError::Truncated)?;
        }
        Ok(())
    }

    fn walk(&self, mut id: u32, path: &str) -> Result<Member, NoMember> {
        let mut total = Member { offset: 0, size: 0 };
        for name in path.split('.') {
            let (bits, of_type) =
                self.search(id, name.as_bytes(), MAX_DEPTH)?.ok_or(NoMember::NoMember)?;
            if bits % 8 != 0 {
                return Err(NoMember::Unaddressable);
            }
            id = self.resolve(of_type).ok_or(NoMember::Unaddressable)?;
            total.offset = total.offset.checked_add(bits / 8).ok_or(NoMember::Unaddressable)?;
            total.size = self.size(id, MAX_DEPTH).ok_or(NoMember::Unaddressable)?;
        }
        Ok(total)
    }

    /// Offset in bits and type of a member, in anonymous members too.
    fn search(&self, id: u32, name: &[u8], depth: u32) -> Result<Option<(u32, u32)>, NoMember> {
        let holder = self.get(id).ok_or(NoMember::NoMember)?;
        if !matches!(holder.kind, KIND_STRUCT | KIND_UNION) || depth == 0 {
            return Ok(None);
        }
        for index in 0..holder.count as usize {
            let at = holder.rest + index * 12;
            let (Some(member), Some(of_type), Some(offset)) =
                (word(self.types, at), word(self.types, at + 4), word(self.types, at + 8))
            else {
                return Err(NoMember::Unaddressable);
            };
            let (bits, width) =
                if holder.kind_flag { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            let text = self.text(member).ok_or(NoMember::Unaddressable)?;
            if text == name {
                return if width == 0 {
                    Ok(Some((bits, of_type)))
                } else {
                    Err(NoMember::Unaddressable)
                };
            }
            if text.is_empty()
                && let Some(inner) = self.resolve(of_type)
                && let Some((more, of_type)) = self.search(inner, name, depth - 1)?
            {
                let bits = bits.checked_add(more).ok_or(NoMember::Unaddressable)?;
                return Ok(Some((bits, of_type)));
            }
        }
        Ok(None)
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let of_type = self.get(id)?;
            match of_type.kind {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = of_type.size_or_type;
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn size(&self, id: u32, depth: u32) -> Option<u32> {
        if depth == 0 {
            return None;
        }
        let of_type = self.get(self.resolve(id)?)?;
        match of_type.kind {
            KIND_PTR => Some(8),
            KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 => {
                Some(of_type.size_or_type)
            }
            KIND_ARRAY => {
                let element = word(self.types, of_type.rest)?;
                let count = word(self.types, of_type.rest + 8)?;
                self.size(element, depth - 1)?.checked_mul(count)
            }
            _ => None,
        }
    }

    fn get(&self, id: u32) -> Option<Type> {
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        self.decode(*self.positions.get(index)? as usize)
    }

    fn decode(&self, position: usize) -> Option<Type> {
        let info = word(self.types, position + 4)?;
        Some(Type {
            name: word(self.types, position)?,
            kind: info >> 24 & 0x1f,
            kind_flag: info >> 31 == 1,
            count: info & 0xffff,
            size_or_type: word(self.types, position + 8)?,
            rest: position + 12,
        })
    }

    fn text(&self, offset: u32) -> Option<&'a [u8]> {
        let from = self.strings.get(offset as usize..)?;
        let end = from.iter().position(|byte| *byte == 0)?;
        from.get(..end)
    }
}

/// Bytes behind a type's first twelve.
fn trailing(of_type: &Type) -> Result<usize, BtfError> {
    let count = of_type.count as usize;
    match of_type.kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => Ok(4),
        KIND_ARRAY => Ok(12),
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => Ok(count * 12),
        KIND_ENUM | KIND_FUNC_PROTO => Ok(count * 8),
        // Pointers, forward declarations, typedefs, qualifiers, functions, floats.
        KIND_PTR | 7..=12 | 16 | KIND_TYPE_TAG => Ok(0),
        other => Err(BtfError::UnknownKind(other)),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRINGS: &[u8] = b"\0int\0outer\0plain\0nested\0inner\0deep\0bits\0list\0";

    fn name(text: &str) -> u32 {
        let position = STRINGS.windows(text.len() + 2).position(|window| {
            window[0] == 0
                && window[text.len() + 1] == 0
                && &window[1..=text.len()] == text.as_bytes()
        });
        position.map_or(0, |position| position as u32 + 1)
    }

    fn blob(types: &[u32]) -> Vec<u8> {
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let length = types.len() as u32 * 4;
        for value in [24, 0, length, length, STRINGS.len() as u32].iter().chain(types) {
            bytes.extend(value.to_ne_bytes());
        }
        bytes.extend(STRINGS);
        bytes
    }

    /// `struct outer { int plain; union { int nested; }; struct inner deep; int bits : 3; int list[4] }`
    fn example() -> Vec<u32> {
        let structure = |count: u32| KIND_STRUCT << 24 | count;
        let mut types = vec![name("int"), KIND_INT << 24, 4, 32]; // 1
        types.extend([0, KIND_UNION << 24 | 1, 4, name("nested"), 1, 0]); // 2
        types.extend([name("inner"), structure(1), 8, name("deep"), 1, 32]); // 3
        types.extend([0, KIND_ARRAY << 24, 0, 1, 1, 4]); // 4
        types.extend([name("inner"), KIND_TYPEDEF << 24, 3]); // 5
        types.extend([name("outer"), 1 << 31 | structure(5), 40]); // 6
        types.extend([name("plain"), 1, 0, 0, 2, 32, name("inner"), 5, 64]);
        types.extend([name("bits"), 1, 3 << 24 | 128, name("list"), 4, 160]);
        types
    }

    #[test]
    fn members_are_found_through_anonymous_unions_typedefs_and_paths() {
        let blob = blob(&example());
        let btf = Btf::parse(&blob).expect("example");
        let at = |path| btf.member("outer", path);
        assert_eq!(at("plain"), Ok(Member { offset: 0, size: 4 }));
        assert_eq!(at("nested"), Ok(Member { offset: 4, size: 4 }));
        assert_eq!(at("inner.deep"), Ok(Member { offset: 12, size: 4 }));
        assert_eq!(at("list"), Ok(Member { offset: 20, size: 16 }));
        assert_eq!(at("bits"), Err(NoMember::Unaddressable));
        assert_eq!(at("none"), Err(NoMember::NoMember));
        assert_eq!(at("plain.deep"), Err(NoMember::NoMember));
        assert_eq!(btf.member("other", "plain"), Err(NoMember::NoStructure));
    }

    #[test]
    fn two_structures_of_one_name_must_agree() {
        let mut types = example();
        types.extend([name("inner"), KIND_STRUCT << 24 | 1, 8, name("deep"), 1, 32]);
        let agreeing = blob(&types);
        let btf = Btf::parse(&agreeing).expect("agreeing");
        assert_eq!(btf.member("inner", "deep"), Ok(Member { offset: 4, size: 4 }));
        types.extend([name("inner"), KIND_STRUCT << 24 | 1, 8, name("deep"), 1, 0]);
        let disagreeing = blob(&types);
        let btf = Btf::parse(&disagreeing).expect("disagreeing");
        assert_eq!(btf.member("inner", "deep"), Err(NoMember::Ambiguous));
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        let blob = blob(&[
            name("outer"),
            KIND_STRUCT << 24 | 1,
            4,
            0,
            1,
            0, // anonymous member of its own type
            name("inner"),
            KIND_TYPEDEF << 24,
            2,
        ]);
        let btf = Btf::parse(&blob).expect("cycle");
        assert_eq!(btf.member("outer", "plain"), Err(NoMember::NoMember));
    }

    #[test]
    fn every_cut_of_a_blob_is_refused() {
        let blob = blob(&example());
        for cut in 0..blob.len() {
            assert!(Btf::parse(&blob[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn the_running_kernel_has_the_fields_of_a_task() {
        let Ok(blob) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let btf = Btf::parse(&blob).expect("the kernel's own BTF");
        assert_eq!(btf.member("task_struct", "comm").map(|member| member.size), Ok(16));
        assert_eq!(btf.member("mm_struct", "arg_start").map(|member| member.size), Ok(8));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Btf::parse(&bytes);
        }

        #[test]
        fn arbitrary_types_never_panic(words in proptest::collection::vec(any::<u32>(), 0..200)) {
            if let Ok(btf) = Btf::parse(&blob(&words)) {
                let _ = btf.member("outer", "plain.deep");
            }
        }

        #[test]
        fn a_damaged_example_never_panics(at in 0usize..44, value in any::<u32>()) {
            let mut words = example();
            let at = at % words.len();
            words[at] = value;
            if let Ok(btf) = Btf::parse(&blob(&words)) {
                for path in ["plain", "nested", "inner.deep", "list"] {
                    let _ = btf.member("outer", path);
                }
            }
        }
    }
}
