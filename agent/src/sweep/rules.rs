//! Which bundle brought a rule to this host first, so that a late find can say why no earlier scan
//! found the file.
//!
//! A hash rule is known by its hash, a YARA rule by its name: one that was changed under its name
//! counts as the old one. The text of the rules is read for these keys alone; what it means is the
//! caged workers' to find out, and a rule that is written in an unusual way has no origin.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use holdfast_common::scans::RuleOrigin;
use holdfast_common::verdict::{Engine, Hashes, Signature};
use sha2::{Digest, Sha256};

use super::history::{History, HistoryError};
use crate::scan::{BundleSource, WorkerFactory};
use crate::worker::image::{self, RuleFile, RuleKind};

/// Rules that are remembered; those of later bundles have no origin then.
const MOST_RULES: u64 = 4_000_000;

/// Notes the bundle in use, where it is new. Takes seconds for a million rules.
pub(super) fn note(history: &History, factory: &WorkerFactory) -> Result<(), HistoryError> {
    let (state, source) = factory.rules();
    if history.knows_bundle(&state.digest)? {
        return Ok(());
    }
    let text = read(&source).unwrap_or_default();
    let files = image::read(&text).unwrap_or_default();
    let room = MOST_RULES.saturating_sub(history.rules()?);
    let mut keys = files.iter().flat_map(keys).take(usize::try_from(room).unwrap_or(usize::MAX));
    history.put_bundle((&state.digest, &state.path, state.loaded_ms), &mut keys)
}

/// Where the rule that matched came from. `since_ms`: the file has not changed since then.
pub(super) fn origin(
    history: &History,
    signature: &Signature,
    hashes: &Hashes,
    since_ms: i64,
) -> Option<RuleOrigin> {
    let keys = match signature.engine {
        Engine::Hash => [&hashes.sha256, &hashes.sha1, &hashes.md5]
            .into_iter()
            .filter_map(|hash| hash_key(hash.as_bytes()))
            .collect(),
        Engine::Yara => vec![name_key(signature.name.as_bytes())],
        // Part of the agent itself, or an order.
        Engine::Eicar | Engine::SelfProof | Engine::DeniedPath => return None,
    };
    let known = keys.into_iter().find_map(|key| history.origin(key).ok().flatten());
    let (bundle, path, loaded_ms) = known?;
    Some(RuleOrigin {
        name: signature.name.clone(),
        bundle,
        path,
        since_ms: loaded_ms,
        newer_than_file: loaded_ms > since_ms,
    })
}

fn read(source: &BundleSource) -> std::io::Result<Vec<u8>> {
    let file = File::from(source.image().as_fd().try_clone_to_owned()?);
    let length = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

fn keys<'a>(file: &RuleFile<'a>) -> impl Iterator<Item = i64> + use<'a> {
    let kind = RuleKind::of(file.name);
    let content: &'a [u8] = file.content;
    content.split(|byte| *byte == b'\n').filter_map(move |line| match kind? {
        RuleKind::Sha256 | RuleKind::Sha1 | RuleKind::Md5 => hash_key(line.trim_ascii_start()),
        RuleKind::Yara => rule_name(line).map(name_key),
    })
}

/// Of the hex digits at the beginning, when these are as many as a hash has.
fn hash_key(text: &[u8]) -> Option<i64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if !matches!(digits, 32 | 40 | 64) {
        return None;
    }
    let first = std::str::from_utf8(text.get(..16)?).ok()?;
    u64::from_str_radix(first, 16).ok().map(u64::cast_signed)
}

fn name_key(name: &[u8]) -> i64 {
    let digest = Sha256::new().chain_update(b"yara ").chain_update(name).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}

/// `private global rule Name …`
fn rule_name(line: &[u8]) -> Option<&[u8]> {
    let mut words = line
        .split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))
        .filter(|word| !word.is_empty());
    loop {
        match words.next()? {
            b"private" | b"global" => {}
            b"rule" => return words.next(),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_known_by_hash_and_by_name() {
        let hashes =
            b"275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f Some.Name\n\
            # note\n\n44D88612FEA8A8F36DE82E1278ABB02F,Other\n";
        let list = RuleFile { name: "a.sha256", content: hashes };
        let keys: Vec<i64> = keys(&list).collect();
        assert_eq!(keys.len(), 2);
        assert_eq!(hash_key(b"44d88612fea8a8f36de82e1278abb02f"), Some(keys[1]), "in either case");
        let yara =
            b"rule One { condition: true }\n  private rule Two : tag\n// rule Three\nrules\n";
        let names: Vec<&[u8]> = yara.split(|byte| *byte == b'\n').filter_map(rule_name).collect();
        assert_eq!(names, [&b"One"[..], b"Two", b"Three"]);
    }

    #[test]
    fn arbitrary_text_gives_keys_or_none() {
        let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
        for name in ["a.md5", "a.yar", "a"] {
            let _ = keys(&RuleFile { name, content: &noise }).count();
        }
    }
}
