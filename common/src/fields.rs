//! Tables of kernel fields whose offsets the agent finds in the running kernel's BTF.

/// Makes `Field` and `FIELDS` of rows `Name = "structure"."path": size;`.
macro_rules! fields {
    ($($name:ident = $structure:literal . $member:literal : $size:literal;)*) => {
        /// A kernel field that the programs read; its number is its place in the offset
        /// table. Members of anonymous structs and unions count as their holder's; the first of
        /// several names (`a|b`) that the kernel has counts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs, reason = "each variant is named after the field it stands for")]
        pub enum Field { $($name),* }

        /// The field, its structure, its path inside, its size in bytes (0: any).
        pub const FIELDS: &[(Field, &str, &str, u32)] =
            &[$((Field::$name, $structure, $member, $size)),*];
    };
}

pub(crate) use fields;
