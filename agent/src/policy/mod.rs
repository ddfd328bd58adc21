//! The manager's policy on this host: which one runs, and what comes of it and the host's config.
//!
//! ```text
//!  offer ─▶ weigh (newer? parsed, laid over the config, paths there) ─▶ keep (on disk)
//!        ─▶ every part of the agent (daemon/policy.rs) ─▶ settle (told as running)
//! ```
//!
//! INVARIANT: one that cannot be put in force is refused whole, and the one before it stays, in
//! force and on disk. What runs is what every part has taken. Without a manager the one on disk
//! runs; one on disk that cannot be read leaves the host to its own config, and makes it red.

mod overlay;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_common::policy::{Document, MAX_DOCUMENT};
use holdfast_common::ruled::{LONGEST, MOST, PolicyRefusal, PolicyReport, PolicyRun, PolicyState};
use serde::{Deserialize, Serialize};

use self::overlay::Overlaid;
use crate::config::{Config, Protect};
use crate::now_ms;
use crate::on_access::check_paths;

/// Name of the file in the state folder.
const FILE: &str = "policy.json";
/// Bytes of it: a document whose every byte is written as six.
const LARGEST: u64 = 8 * MAX_DOCUMENT as u64;

/// A policy as the manager gives it. Without an id: there is none any more.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Which version.
    pub version: u64,
    /// TOML.
    pub document: Vec<u8>,
}

/// As it is on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    id: String,
    name: String,
    version: u64,
    since_ms: i64,
    document: String,
}

/// What is to be put in force.
pub struct Next {
    kept: Option<Kept>,
    overlaid: Overlaid,
    warnings: Vec<String>,
}

impl Next {
    /// What every part has to go by.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.overlaid.config
    }
}

/// The policies of this host.
pub struct Policies {
    local: Config,
    path: PathBuf,
    offered: Mutex<Option<Offer>>,
    /// One is put in force at a time.
    turn: Mutex<()>,
    state: Mutex<State>,
}

struct State {
    config: Arc<Config>,
    kept: Option<Kept>,
    overlaid: Overlaid,
    warnings: Vec<String>,
    refused: Option<PolicyRefusal>,
    problem: Option<String>,
}

impl Policies {
    /// Takes up the policy on disk.
    #[must_use]
    pub fn open(local: Config) -> Self {
        let path = local.state_dir.join(FILE);
        let mut problem = None;
        let mut next = Next { kept: None, overlaid: Overlaid::none(&local), warnings: Vec::new() };
        match read(&path).and_then(|kept| kept.map(|kept| Next::new(&local, kept)).transpose()) {
            Ok(None) => {}
            Ok(Some(_)) if !local.policy.accept => {}
            Ok(Some(mut read)) => {
                problem = read.without_missing(&local);
                next = read;
            }
            Err(why) => problem = Some(format!("the policy on disk is not in force: {why}")),
        }
        let Next { kept, overlaid, warnings } = next;
        let config = Arc::new(overlaid.config.clone());
        let state = State { config, kept, overlaid, warnings, refused: None, problem };
        Self {
            local,
            path,
            offered: Mutex::default(),
            turn: Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// The host's own.
    #[must_use]
    pub fn local(&self) -> &Config {
        &self.local
    }

    /// What is in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.state().config)
    }

    /// A part could not take what was on disk, at the start.
    pub fn fault(&self, why: &str) {
        let mut state = self.state();
        let before = state.problem.take().map(|before| format!("{before}; ")).unwrap_or_default();
        state.problem = Some(bounded(&format!("{before}{why}")));
    }

    /// Something came from the manager; what came before it and was not looked at is forgotten.
    pub fn offer(&self, offer: Offer) {
        *lock(&self.offered) = Some(offer);
    }

    /// Looks at what was offered, alone: `act` gets it.
    pub fn take_turn(&self, act: impl FnOnce(Offer)) {
        let _turn = lock(&self.turn);
        let offered = lock(&self.offered).take();
        if let Some(offer) = offered {
            act(offer);
        }
    }

    /// What an offer comes to; `None` where nothing is to be done.
    ///
    /// # Errors
    /// Why it cannot be put in force.
    pub fn weigh(&self, offer: &Offer) -> Result<Option<Next>, String> {
        let running = self.state().kept.clone();
        if offer.id.is_empty() {
            let none =
                || Next { kept: None, overlaid: Overlaid::none(&self.local), warnings: Vec::new() };
            return Ok(running.map(|_| none()));
        }
        let known = |kept: &Kept| kept.id == offer.id && kept.version >= offer.version;
        if !self.local.policy.accept || running.as_ref().is_some_and(known) {
            return Ok(None);
        }
        let document = String::from_utf8(offer.document.clone())
            // With the place, as the parser says it.
            .or_else(|_| Document::parse(&offer.document).map(|_| String::new()))
            .map_err(|error| error.to_string())?;
        let next = Next::new(
            &self.local,
            Kept {
                id: offer.id.clone(),
                name: offer.name.clone(),
                version: offer.version,
                since_ms: now_ms(),
                document,
            },
        )?;
        check_paths(&next.config().on_access.protect)?;
        Ok(Some(next))
    }

    /// What runs, to be put back.
    #[must_use]
    pub fn current(&self) -> Next {
        let state = self.state();
        let kept = state.kept.clone();
        let document =
            kept.as_ref().and_then(|kept| Document::parse(kept.document.as_bytes()).ok());
        let mut overlaid = match document {
            Some(document) => Overlaid::new(&self.local, document),
            None => Overlaid::none(&self.local),
        };
        overlaid.config = Config::clone(&state.config);
        Next { kept, overlaid, warnings: state.warnings.clone() }
    }

    /// Puts it on disk, in place of the one that is there.
    ///
    /// # Errors
    /// Why not; the old one is still there.
    pub fn keep(&self, next: &Next) -> Result<(), String> {
        let done = match &next.kept {
            Some(kept) => {
                let json = serde_json::to_vec(kept).map_err(|error| error.to_string())?;
                crate::durable::replace(&self.path, &[&json])
            }
            None => remove(&self.path),
        };
        done.map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Every part has taken it.
    pub fn settle(&self, next: Next) -> Option<PolicyRun> {
        let mut state = self.state();
        state.config = Arc::new(next.overlaid.config.clone());
        (state.kept, state.overlaid, state.warnings) = (next.kept, next.overlaid, next.warnings);
        (state.refused, state.problem) = (None, None);
        state.running()
    }

    /// It was refused. Returns false when that was told before.
    pub fn refuse(&self, offer: &Offer, why: &str) -> bool {
        let new = PolicyRefusal {
            id: bounded(&offer.id),
            name: bounded(&offer.name),
            version: offer.version,
            why: bounded(why),
            time_ms: now_ms(),
        };
        let mut state = self.state();
        let same = |old: &PolicyRefusal| {
            (&old.id, old.version, &old.why) == (&new.id, new.version, &new.why)
        };
        let told = state.refused.as_ref().is_some_and(same);
        if !told {
            state.refused = Some(new);
        }
        !told
    }

    /// For status and heartbeat.
    #[must_use]
    pub fn status(&self) -> PolicyState {
        let state = self.state();
        PolicyState {
            accepts: self.local.policy.accept,
            running: state.running(),
            refused: state.refused.clone(),
            problem: state.problem.clone(),
        }
    }

    /// For the command line.
    #[must_use]
    pub fn report(&self) -> PolicyReport {
        let status = self.status();
        let state = self.state();
        PolicyReport {
            state: status,
            settings: state.overlaid.settings(),
            document: state.kept.as_ref().map(|kept| kept.document.clone()),
        }
    }

    /// What is red, by name.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let state = self.state();
        let mut problems: Vec<String> =
            state.problem.iter().map(|problem| format!("policy: {problem}")).collect();
        if let Some(PolicyRefusal { name, version, why, .. }) = &state.refused {
            problems.push(format!("policy {name} version {version} was refused: {why}"));
        }
        problems
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn running(&self) -> Option<PolicyRun> {
        let kept = self.kept.as_ref()?;
        Some(PolicyRun {
            id: bounded(&kept.id),
            name: bounded(&kept.name),
            version: kept.version,
            since_ms: kept.since_ms,
            kept: self.overlaid.kept.iter().take(MOST).map(|key| bounded(key)).collect(),
            warnings: self.warnings.clone(),
        })
    }
}

impl Next {
    fn new(local: &Config, kept: Kept) -> Result<Self, String> {
        let document =
            Document::parse(kept.document.as_bytes()).map_err(|error| error.to_string())?;
        let warnings = document.warnings();
        Ok(Self { overlaid: Overlaid::new(local, document), kept: Some(kept), warnings })
    }

    /// At the start, protected paths that are gone are left out: the rest of the policy is better
    /// than none of it. Says which.
    fn without_missing(&mut self, local: &Config) -> Option<String> {
        let config = &mut self.overlaid.config.on_access;
        // Those of the config are its own to complain about.
        if config.protect == local.on_access.protect {
            return None;
        }
        let Protect::Paths(paths) = &config.protect else { return None };
        let one = |path: &PathBuf| Protect::Paths(vec![path.clone()]);
        let why: Vec<String> =
            paths.iter().filter_map(|path| check_paths(&one(path)).err()).collect();
        if why.is_empty() {
            return None;
        }
        let there: Vec<PathBuf> =
            paths.iter().filter(|path| check_paths(&one(path)).is_ok()).cloned().collect();
        config.protect =
            if there.is_empty() { local.on_access.protect.clone() } else { Protect::Paths(there) };
        Some(bounded(&why.join("; ")))
    }
}

fn read(path: &Path) -> Result<Option<Kept>, String> {
    use std::io::Read;
    let mut text = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => {
            file.take(LARGEST).read_to_end(&mut text).map_err(|error| error.to_string())?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| format!("it is damaged: {error}"))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all(),
    }
}

/// Cut at a character, without what a terminal would take for an order.
fn bounded(text: &str) -> String {
    let mut text = text.to_owned();
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    fn policies(folder: &Path, more: &str) -> Policies {
        let text = format!(
            "state_dir = {folder:?}\nsocket = \"/r\"\n[on_access]\nprotect = [\"/\"]\n\
             mode = \"block\"\n{more}"
        );
        Policies::open(toml::from_str(&text).expect("config"))
    }

    fn offer(version: u64, document: &str) -> Offer {
        let (id, name) = ("web".to_owned(), "web".to_owned());
        Offer { id, name, version, document: document.as_bytes().to_vec() }
    }

    fn run(policies: &Policies, offer: &Offer) {
        let next = policies.weigh(offer).expect("it can be").expect("it is new");
        policies.keep(&next).expect("kept");
        policies.settle(next);
    }

    const DETECT: &str = "[on_access]\nmode = \"detect\"";

    #[test]
    fn what_was_kept_runs_after_the_next_start_and_older_ones_are_nothing_new() {
        let folder = tempfile::tempdir().expect("folder");
        let first = policies(folder.path(), "");
        run(&first, &offer(3, DETECT));
        drop(first);
        let next = policies(folder.path(), "");
        assert_eq!(next.config().on_access.mode, Mode::Detect);
        assert_eq!(next.status().running.expect("running").version, 3);
        for version in [1, 3] {
            assert!(next.weigh(&offer(version, "")).expect("no error").is_none(), "{version}");
        }
        // Another policy's numbers are its own.
        let other = Offer { id: "db".to_owned(), ..offer(1, "") };
        run(&next, &other);
        assert_eq!(next.config().on_access.mode, Mode::Block);
        // And none at all.
        run(&next, &Offer::default());
        assert_eq!(next.status().running, None);
        assert!(!folder.path().join(FILE).exists());
        assert!(next.weigh(&Offer::default()).expect("no error").is_none());
    }

    #[test]
    fn what_is_refused_changes_nothing_and_is_told_once() {
        let folder = tempfile::tempdir().expect("folder");
        let policies = policies(folder.path(), "");
        run(&policies, &offer(1, DETECT));
        for bad in ["[on_access]\nmod = 1", "[on_access]\nprotect = [\"/nowhere/at/all\"]"] {
            let bad = offer(2, bad);
            let why = policies.weigh(&bad).err().expect("refused");
            assert!(policies.refuse(&bad, &why) && !policies.refuse(&bad, &why), "{why}");
            assert!(policies.problems()[0].contains("version 2 was refused"));
        }
        let binary = Offer { document: vec![0xff], ..offer(2, "") };
        let why = policies.weigh(&binary).err().expect("refused");
        assert!(why.contains("not UTF-8"), "{why}");
        assert_eq!(policies.status().running.expect("running").version, 1);
        assert_eq!(policies.config().on_access.mode, Mode::Detect);
        run(&policies, &offer(3, ""));
        assert_eq!(policies.status().refused, None);
    }

    #[test]
    fn a_host_that_accepts_none_runs_none() {
        let folder = tempfile::tempdir().expect("folder");
        run(&policies(folder.path(), ""), &offer(1, DETECT));
        let closed = policies(folder.path(), "[policy]\naccept = false");
        assert_eq!(closed.config().on_access.mode, Mode::Block);
        assert!(!closed.status().accepts && closed.problems().is_empty());
        assert!(closed.weigh(&offer(2, DETECT)).expect("no error").is_none());
    }

    #[test]
    fn a_damaged_one_on_disk_leaves_the_config_and_is_red() {
        let folder = tempfile::tempdir().expect("folder");
        for damage in ["{", "", "{\"id\":\"x\"}"] {
            std::fs::write(folder.path().join(FILE), damage).expect("write");
            let policies = policies(folder.path(), "");
            assert!(policies.problems()[0].contains("not in force"), "{damage}");
            assert_eq!(policies.config().on_access.mode, Mode::Block);
        }
    }

    #[test]
    fn protected_paths_that_are_gone_at_the_start_are_left_out_and_named() {
        let folder = tempfile::tempdir().expect("folder");
        let gone = folder.path().join("gone");
        std::fs::create_dir(&gone).expect("folder");
        let document = format!("[on_access]\nmode = \"detect\"\nprotect = [\"/\", {gone:?}]");
        run(&policies(folder.path(), ""), &offer(1, &document));
        std::fs::remove_dir(&gone).expect("remove");
        let policies = policies(folder.path(), "");
        assert_eq!(policies.config().on_access.mode, Mode::Detect, "the rest is in force");
        assert_eq!(policies.config().on_access.protect, Protect::Paths(vec!["/".into()]));
        assert!(policies.problems()[0].contains("gone"));
    }
}
