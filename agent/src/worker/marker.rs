//! The content by which the agent proves itself: harmless, and malicious by definition.
//!
//! Where the bundle has YARA rules, [`RULE`] is compiled among them and the marker is found by
//! YARA alone: a marker found proves the engine that finds the rest. Without any, the scan core
//! knows it by itself, as it does the EICAR test file.

/// Markers begin so; a random number follows.
pub const TEXT: &str = "HOLDFAST-SELF-PROOF-MARKER ";

/// Longest marker, in bytes.
pub const MAX_LEN: usize = 128;

/// Its name in events.
pub const NAME: &str = "Holdfast_Self_Proof";

/// File name of [`RULE`] among the bundle's.
pub const RULE_FILE: &str = "holdfast-self-proof.yar";

/// The same by YARA.
pub const RULE: &str = r#"rule Holdfast_Self_Proof {
    strings: $text = "HOLDFAST-SELF-PROOF-MARKER "
    condition: filesize <= 128 and $text at 0
}"#;

/// Whether this whole content is a marker.
#[must_use]
pub fn is_marker(content: &[u8]) -> bool {
    content.len() <= MAX_LEN && content.starts_with(TEXT.as_bytes())
}
