//! What of an event can be searched for: words and facts.
//!
//! Words are runs of letters and digits, in lower case, in their order. Facts are exact
//! values of named fields; each is one word made of a hash, so that one index holds both. Both
//! databases get words that were cut here, so that both find the same. Pure.
//!
//! Limits: a word has 64 characters, a text field 3,000 words and 160 KiB; what
//! is beyond is not found.

use std::fmt::Write;

use holdfast_common::event::{Activity, Event, EventBody};
use holdfast_common::process::ProcessInfo;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Characters of a word that count.
const WORD: usize = 64;
/// Words of a field that count.
const WORDS: usize = 3000;
/// Their bytes; PostgreSQL takes 1 MiB for all fields together.
const BYTES: usize = 160 << 10;

/// Fields of text: words in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TextField {
    /// The command line.
    Cmdline,
    /// A file's path, or the executable's.
    Path,
    /// Names and sentences: titles, evidence, DNS names, reasons.
    Other,
}

/// Fields that match as a whole, whatever the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FactField {
    /// The event's kind.
    Kind,
    /// The host's name or id.
    Host,
    /// The event's id.
    Id,
    /// Name of a user.
    User,
    /// A user's number.
    Uid,
    /// Process id.
    Pid,
    /// Process id of the parent.
    Parent,
    /// Executable: full path, or its last part.
    Exe,
    /// Hash of a file.
    Sha256,
    /// An address, local or remote.
    Ip,
    /// A port, local or remote.
    Port,
    /// A DNS name.
    Domain,
    /// A model's id or title.
    Model,
    /// ATT&CK technique.
    Technique,
    /// A signature's name.
    Signature,
    /// What was done.
    Action,
    /// Container id.
    Container,
    /// Level of a detection.
    Level,
}

impl FactField {
    /// Every field and its name in queries.
    pub const ALL: [(Self, &'static str); 18] = [
        (Self::Kind, "kind"),
        (Self::Host, "host"),
        (Self::Id, "id"),
        (Self::User, "user"),
        (Self::Uid, "uid"),
        (Self::Pid, "pid"),
        (Self::Parent, "parent"),
        (Self::Exe, "exe"),
        (Self::Sha256, "sha256"),
        (Self::Ip, "ip"),
        (Self::Port, "port"),
        (Self::Domain, "domain"),
        (Self::Model, "model"),
        (Self::Technique, "technique"),
        (Self::Signature, "signature"),
        (Self::Action, "action"),
        (Self::Container, "container"),
        (Self::Level, "level"),
    ];

    /// The name in queries.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(field, _)| *field == self).map_or("", |(_, name)| name)
    }
}

/// What is searched in one event: words with one space between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexed {
    /// Words of [`TextField::Cmdline`].
    pub cmdline: String,
    /// Words of [`TextField::Path`].
    pub path: String,
    /// Words of [`TextField::Other`].
    pub other: String,
    /// Words made by [`fact`].
    pub facts: String,
}

/// The words of a text.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut line = String::new();
    words_add(&mut line, text);
    line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Adds the words of a text to a line of them.
fn words_add(line: &mut String, text: &str) {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    for word in words.take(WORDS) {
        let before = line.len();
        if !line.is_empty() {
            line.push(' ');
        }
        let begin = line.len();
        if word.is_ascii() {
            line.push_str(&word[..word.len().min(WORD)]);
            line[begin..].make_ascii_lowercase();
        } else {
            // Some letters become several, and marks among them.
            let lower = word.chars().take(WORD).flat_map(char::to_lowercase);
            line.extend(lower.filter(|c| c.is_alphanumeric()));
        }
        if line.len() == begin {
            line.truncate(before);
        }
    }
}

/// The word that stands for a field's value.
#[must_use]
pub fn fact(field: FactField, value: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut hash = Sha256::new();
    hash.update(field.name());
    hash.update([0]);
    if value.is_ascii() && !value.bytes().any(|byte| byte.is_ascii_uppercase()) {
        hash.update(value);
    } else {
        hash.update(value.to_lowercase());
    }
    let mut word = String::with_capacity(21);
    word.push('f');
    for byte in hash.finalize().iter().take(10) {
        word.push(char::from(HEX[usize::from(byte >> 4)]));
        word.push(char::from(HEX[usize::from(byte & 15)]));
    }
    word
}

/// The word that every event has.
pub const EVERY: &str = "every";

impl Indexed {
    /// What every event has.
    #[must_use]
    pub fn envelope(id: Uuid, kind: &str, host: Uuid, host_name: &str) -> Self {
        let mut indexed = Self { facts: EVERY.to_owned(), ..Self::default() };
        indexed.fact(FactField::Kind, kind);
        indexed.fact(FactField::Host, host_name);
        indexed.fact(FactField::Host, &host.to_string());
        indexed.fact(FactField::Id, &id.to_string());
        indexed
    }

    /// The rest of an event that is understood.
    #[must_use]
    pub fn with_event(mut self, event: &Event) -> Self {
        self.body(&event.body);
        for line in [&mut self.cmdline, &mut self.path, &mut self.other] {
            shorten(line);
        }
        self
    }

    fn fact(&mut self, field: FactField, value: &str) {
        if value.is_empty() {
            return;
        }
        let word = fact(field, value);
        if !self.facts.contains(&word) {
            self.facts.push(' ');
            self.facts.push_str(&word);
        }
    }

    fn file(&mut self, path: &str) {
        words_add(&mut self.path, path);
    }

    fn text(&mut self, text: &str) {
        words_add(&mut self.other, text);
    }

    fn process(&mut self, process: &ProcessInfo) {
        for argument in &process.args {
            words_add(&mut self.cmdline, argument);
        }
        self.file(&process.exe);
        self.executable(&process.exe);
        if let Some(script) = &process.script {
            self.file(script);
            self.executable(script);
        }
        self.text(&process.comm);
        self.fact(FactField::User, &process.user);
        self.fact(FactField::Uid, &process.uid.to_string());
        self.fact(FactField::Pid, &process.key.pid.to_string());
        if let Some(parent) = &process.parent {
            self.fact(FactField::Parent, &parent.pid.to_string());
        }
        if let Some(container) = &process.container {
            self.fact(FactField::Container, container);
        }
        if let Some(sha256) = &process.sha256 {
            self.fact(FactField::Sha256, sha256);
        }
    }

    fn executable(&mut self, path: &str) {
        self.fact(FactField::Exe, path);
        if let Some((_, name)) = path.rsplit_once('/') {
            self.fact(FactField::Exe, name);
        }
    }

    fn body(&mut self, body: &EventBody) {
        match body {
            EventBody::Malware(found) => {
                self.file(&found.path);
                for hash in [&found.hashes.sha256, &found.hashes.sha1, &found.hashes.md5] {
                    self.text(hash);
                }
                self.fact(FactField::Sha256, &found.hashes.sha256);
                self.fact(FactField::Signature, &found.signature.name);
                self.text(&found.signature.name);
                self.text(found.reason.as_deref().unwrap_or_default());
                found.process.iter().for_each(|process| self.process(process));
            }
            EventBody::Model(fired) => {
                self.fact(FactField::Model, &fired.model_id.to_string());
                self.fact(FactField::Model, &fired.title);
                self.fact(FactField::Level, &fired.level);
                fired.attack.iter().for_each(|id| self.fact(FactField::Technique, id));
                self.text(&fired.title);
                fired.evidence.values().for_each(|value| self.text(value));
                self.process(&fired.process);
            }
            EventBody::Failure(failure) => {
                self.file(&failure.path);
                self.fact(FactField::Action, failure.reason.name());
            }
            EventBody::Quarantine(done) => {
                self.file(&done.path);
                self.fact(FactField::Action, &done.action);
                self.fact(FactField::Sha256, &done.sha256);
            }
            EventBody::Exec(exec) => self.process(&exec.process),
            EventBody::PacketSocket(socket) => {
                self.process(&socket.process);
                self.fact(FactField::Action, &socket.action);
            }
            EventBody::Activity(done) => {
                self.process(&done.process);
                self.fact(FactField::Action, done.activity.name());
                self.activity(&done.activity);
            }
            EventBody::Network(used) => {
                self.process(&used.process);
                self.fact(FactField::Action, &used.action);
                for (address, port) in [
                    (&used.local_address, used.local_port),
                    (&used.remote_address, used.remote_port),
                ] {
                    self.fact(FactField::Ip, address);
                    self.fact(FactField::Port, &port.to_string());
                }
                self.fact(FactField::Domain, used.dns_name.trim_end_matches('.'));
                self.text(&used.dns_name);
                used.dns_answers.iter().for_each(|answer| self.text(answer));
            }
            EventBody::File(touched) => {
                self.process(&touched.process);
                self.fact(FactField::Action, &touched.action);
                self.file(&touched.path);
                self.file(touched.from.as_deref().unwrap_or_default());
                self.text(&touched.class);
            }
            EventBody::Tampering(done) => {
                done.process.iter().for_each(|process| self.process(process));
                self.fact(FactField::Action, &done.action);
                self.file(&done.target);
            }
            EventBody::Proof(proof) => {
                self.text(&proof.capability);
                self.text(&proof.evidence);
            }
            EventBody::Isolation(cut) => {
                self.fact(FactField::Action, &cut.action);
                self.text(&cut.reason);
            }
            EventBody::Shell(shell) => {
                self.fact(FactField::Action, &shell.action);
                self.text(&shell.by);
                self.text(&shell.reason);
            }
            EventBody::Bundle(bundle) => {
                self.file(&bundle.path);
                self.text(bundle.error.as_deref().unwrap_or_default());
            }
            EventBody::Policy(policy) => {
                self.fact(FactField::Action, &policy.action);
                self.text(&policy.name);
                self.text(policy.error.as_deref().unwrap_or_default());
            }
            EventBody::Coverage(coverage) => {
                self.file(&coverage.mount);
                self.text(coverage.reason.as_deref().unwrap_or_default());
            }
            EventBody::Loss(loss) => self.text(&loss.queue),
            EventBody::Scan(scan) => {
                self.fact(FactField::Action, scan.state.name());
                self.text(&scan.started_by);
                self.text(scan.schedule.as_deref().unwrap_or_default());
                self.text(scan.note.as_deref().unwrap_or_default());
                scan.finds.iter().for_each(|find| self.file(&find.path));
            }
            EventBody::AgentStarted(_) | EventBody::AgentStopped | EventBody::ProtectionGap(_) => {}
        }
    }

    fn activity(&mut self, activity: &Activity) {
        match activity {
            Activity::Ptrace { request, target } => {
                self.text(request);
                self.file(&target.exe);
            }
            Activity::MemoryWrite { target } | Activity::Signal { target, .. } => {
                self.file(&target.exe);
            }
            Activity::ModuleLoad { name, .. }
            | Activity::BpfLoad { name, .. }
            | Activity::Memfd { name } => self.text(name),
            Activity::Mount { target, source, fs_type, .. } => {
                self.file(target);
                self.file(source);
                self.text(fs_type);
            }
            Activity::Fork { .. }
            | Activity::Exit { .. }
            | Activity::Credentials { .. }
            | Activity::Namespaces { .. } => {}
        }
    }

    /// Adds PostgreSQL's `tsvector`, as its text: the weights A, B, C and D are the four fields.
    pub fn tsvector(&self, text: &mut String) {
        let mut position = 1;
        let fields =
            [('A', &self.cmdline), ('B', &self.path), ('C', &self.other), ('D', &self.facts)];
        for (weight, list) in fields {
            for word in list.split(' ').filter(|word| !word.is_empty()) {
                let _ = write!(text, "'{word}':{position}{weight} ");
                // The highest position that PostgreSQL has.
                position = (position + 1).min(16_383);
            }
            position = (position + 1).min(16_383);
        }
    }
}

fn shorten(line: &mut String) {
    let mut end = 0;
    for (count, word) in line.split(' ').enumerate() {
        let next = end + word.len() + usize::from(count > 0);
        if count == WORDS || next > BYTES {
            line.truncate(end);
            return;
        }
        end = next;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_cut_at_everything_that_is_no_letter_or_digit() {
        assert_eq!(words("tcpdump -c 5 -nnni eth0"), ["tcpdump", "c", "5", "nnni", "eth0"]);
        assert_eq!(words("/usr/bin/Tcp_Dump'; DROP"), ["usr", "bin", "tcp", "dump", "drop"]);
        assert!(words("--- '' \"").is_empty());
        assert_eq!(words(&"a".repeat(100))[0].len(), 64);
    }

    #[test]
    fn facts_of_two_fields_differ_and_case_does_not_matter() {
        assert_eq!(fact(FactField::User, "Root"), fact(FactField::User, "root"));
        assert_ne!(fact(FactField::User, "root"), fact(FactField::Host, "root"));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_word_with_anything_but_letters_and_digits(text in ".{0,200}") {
            for word in words(&text) {
                prop_assert!(word.chars().all(char::is_alphanumeric));
            }
        }
    }
}
