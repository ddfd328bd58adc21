//! What is denied by order: the manager's list, and paths that were denied on this host alone.
//!
//! One JSON file, written whole. INVARIANT: a path is looked up once, when it is ordered, and kept
//! as it was found: whoever can change what lies there cannot steer the order to another file. What
//! this host runs on is refused by name, by inode and by content, each with the reason. A file that
//! cannot be understood is set aside and told of for as long as it lies there: protection begins all
//! the same. Content that this host alone denies is [`super::DenyList`]'s.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_common::container::to_hex;
use holdfast_common::denial::{
    Denial, DenialKind, FleetDenials, MOST, MOST_PATTERNS, WHY, check, essentials, glob, is_exact,
    outlasts, refusal,
};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::denied::{Denied, DenyListError};
use crate::on_access::places::{Inode, inode_of};
use crate::sys::identity::Facts;

/// Name of the file in the state folder.
const FILE: &str = "denials.json";
/// Name of one that could not be understood.
const DAMAGED: &str = "denials.json.damaged";
/// Larger files of the host's own are not hashed.
const LARGEST: u64 = 256 << 20;
/// Files of the state folder that are looked at.
const MOST_FILES: usize = 200;

/// A denial as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What was ordered.
    #[serde(flatten)]
    pub denial: Denial,
    /// The same path without symbolic links, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<String>,
    /// Why it is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// As it is on disk.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    through: i64,
    fleet: Vec<Order>,
    own: Vec<Order>,
}

/// The orders of this host.
#[derive(Debug)]
pub struct Orders {
    file: PathBuf,
    damaged: PathBuf,
    state_dir: PathBuf,
    state: Mutex<State>,
}

/// What this host runs on, as it is now.
#[derive(Debug, Default)]
pub struct Essentials {
    paths: Vec<PathBuf>,
    /// Their inodes.
    inodes: HashSet<Inode>,
    /// Those of them that do not come and go with each event, as files of the state folder do.
    programs: Vec<PathBuf>,
    /// Their inodes.
    pub spared: HashSet<Inode>,
    /// Their SHA-256, once somebody asks.
    contents: OnceCell<HashMap<String, PathBuf>>,
}

impl Orders {
    /// Reads them; a missing file is none, and one that cannot be understood is set aside.
    ///
    /// # Errors
    /// [`DenyListError::Io`]
    pub fn open(state_dir: &Path) -> Result<Self, DenyListError> {
        let (file, damaged) = (state_dir.join(FILE), state_dir.join(DAMAGED));
        let failed = |action, source| DenyListError::Io { action, path: file.clone(), source };
        let state = match std::fs::read(&file) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(state) => state,
                Err(error) => {
                    tracing::error!(%error, path = %file.display(), "denials cannot be understood");
                    std::fs::rename(&file, &damaged)
                        .map_err(|source| failed("set aside", source))?;
                    State::default()
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(source) => return Err(failed("read", source)),
        };
        Ok(Self { file, damaged, state_dir: state_dir.to_owned(), state: Mutex::new(state) })
    }

    /// What was set aside is not in force, whoever ordered it.
    pub fn problem(&self) -> Option<String> {
        let path = self.damaged.display();
        self.damaged.exists().then(|| {
            format!(
                "the denials of this host were damaged and set aside: the manager's come again by \
                 themselves, paths that this host alone denied are to be denied again; then remove {path}"
            )
        })
    }

    /// The last change of the manager's list that is kept.
    pub fn through(&self) -> i64 {
        self.state().through
    }

    /// All of them that have not ended, the manager's first.
    pub fn list(&self) -> Vec<Order> {
        let (state, now_ms) = (self.state(), crate::now_ms());
        let all = state.fleet.iter().chain(&state.own);
        all.filter(|one| one.denial.stands(now_ms)).cloned().collect()
    }

    /// Content that the manager denies, as the deny list has it.
    pub fn hashes(&self) -> Vec<Denied> {
        let state = self.state();
        let hashes = state.fleet.iter().filter(|one| one.denial.kind == DenialKind::Hash);
        hashes
            .filter(|one| one.refused.is_none())
            .map(|one| Denied {
                sha256: one.denial.value.clone(),
                path: "any file".to_owned(),
                model: one.denial.why.clone(),
                since_ms: one.denial.since_ms,
                until_ms: one.denial.until_ms,
                ordered: true,
            })
            .collect()
    }

    /// What this host runs on.
    pub fn essentials(&self) -> Essentials {
        Essentials::now(&self.state_dir)
    }

    /// Takes the manager's list in place of the one before; it is on disk when this returns. What
    /// was there already stays as it was found then.
    ///
    /// # Errors
    /// Why not; the old one stays.
    pub fn take(&self, list: FleetDenials) -> Result<(), String> {
        if list.denials.len() > MOST {
            return Err(format!("{} denials; at most {MOST}", list.denials.len()));
        }
        if patterns(&list.denials) > MOST_PATTERNS {
            return Err(format!("more than {MOST_PATTERNS} of them are patterns"));
        }
        let before = self.state().fleet.clone();
        let essentials = OnceCell::new();
        let fleet = list.denials.into_iter().map(|denial| {
            let known = before.iter().find(|one| one.denial == denial && one.refused.is_none());
            let new = || Order::new(denial, || essentials.get_or_init(|| self.essentials()));
            known.cloned().unwrap_or_else(new)
        });
        let fleet: Vec<Order> = fleet.collect();
        let mut state = self.state();
        self.put(&mut state, |next| (next.through, next.fleet) = (list.through, fleet))
    }

    /// Denies a path on this host. False when it is denied so already.
    ///
    /// # Errors
    /// Why not; nothing is changed.
    pub fn add(&self, denial: Denial) -> Result<bool, String> {
        let essentials = self.essentials();
        let order = Order::new(denial, || &essentials);
        if let Some(why) = &order.refused {
            return Err(why.clone());
        }
        let (mut state, now_ms) = (self.state(), crate::now_ms());
        let value = &order.denial.value;
        let mut own = state.own.clone();
        own.retain(|one| one.denial.stands(now_ms));
        let there = own.iter().find(|one| one.denial.value == *value);
        if there.is_some_and(|one| outlasts(one.denial.until_ms, order.denial.until_ms)) {
            return Ok(false);
        }
        own.retain(|one| one.denial.value != *value);
        if own.len() >= MOST {
            return Err(format!("{MOST} paths are denied on this host already: lift some"));
        }
        own.push(order);
        if patterns(own.iter().map(|one| &one.denial)) > MOST_PATTERNS {
            return Err(format!(
                "{MOST_PATTERNS} patterns are denied on this host already: lift some"
            ));
        }
        self.put(&mut state, |next| next.own = own)?;
        Ok(true)
    }

    /// Denies a path of this host's own no more. False when it was not denied so.
    ///
    /// # Errors
    /// Why not; nothing is changed.
    pub fn remove(&self, path: &str) -> Result<bool, String> {
        let mut state = self.state();
        if !state.own.iter().any(|one| one.denial.value == path) {
            return Ok(false);
        }
        self.put(&mut state, |next| next.own.retain(|one| one.denial.value != path))?;
        Ok(true)
    }

    fn put(&self, state: &mut State, change: impl FnOnce(&mut State)) -> Result<(), String> {
        let mut next = state.clone();
        change(&mut next);
        let text = serde_json::to_vec_pretty(&next).map_err(|error| error.to_string())?;
        crate::durable::replace(&self.file, &[&text])
            .map_err(|error| format!("{}: {error}", self.file.display()))?;
        *state = next;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn patterns<'a>(denials: impl IntoIterator<Item = &'a Denial>) -> usize {
    let pattern = |one: &&Denial| one.kind == DenialKind::Path && !is_exact(&one.value);
    denials.into_iter().filter(pattern).count()
}

impl Order {
    /// As it is found on this host now; refused where it cannot be in force.
    fn new<'a>(mut denial: Denial, essentials: impl FnOnce() -> &'a Essentials) -> Self {
        let end =
            (0..=WHY.min(denial.why.len())).rev().find(|end| denial.why.is_char_boundary(*end));
        denial.why.truncate(end.unwrap_or(0));
        let found = match check(denial.kind, &denial.value) {
            Err(why) => Err(why),
            Ok(value) => {
                denial.value = value;
                match denial.kind {
                    DenialKind::Hash => essentials().refuse_content(&denial.value).map(|()| None),
                    DenialKind::Path => essentials().look_up(&denial.value),
                }
            }
        };
        match found {
            Ok(real) => Self { denial, real, refused: None },
            Err(why) => Self { denial, real: None, refused: Some(why) },
        }
    }
}

impl Essentials {
    fn now(state_dir: &Path) -> Self {
        let mut paths: Vec<PathBuf> = essentials().map(PathBuf::from).collect();
        for process in ["1", "self"] {
            paths.extend(std::fs::read_link(format!("/proc/{process}/exe")));
            let maps = std::fs::read(format!("/proc/{process}/maps")).unwrap_or_default();
            // proc_pid_maps(5): the name is the only field that begins with a slash.
            let names = maps.split(|byte| *byte == b'\n').filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b'/')?;
                Some(PathBuf::from(std::ffi::OsStr::from_bytes(&line[at..])))
            });
            paths.extend(names);
        }
        if let Ok(own) = std::env::current_exe() {
            paths.extend(
                ["holdfastd", "holdfast", "holdfast-scan"].map(|name| own.with_file_name(name)),
            );
        }
        let resolve = |paths: &mut Vec<PathBuf>| {
            let real: Vec<PathBuf> =
                paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
            paths.extend(real);
            paths.sort();
            paths.dedup();
        };
        resolve(&mut paths);
        let programs = paths.clone();
        let kept = std::fs::read_dir(state_dir).into_iter().flatten().flatten();
        paths.extend(kept.take(MOST_FILES).map(|entry| entry.path()));
        resolve(&mut paths);
        let inodes_of = |paths: &[PathBuf]| paths.iter().filter_map(|path| file_at(path)).collect();
        let (inodes, spared) = (inodes_of(&paths), inodes_of(&programs));
        Self { paths, inodes, programs, spared, contents: OnceCell::new() }
    }

    /// A path of an order: refused, or without its symbolic links where it has any.
    fn look_up(&self, path: &str) -> Result<Option<String>, String> {
        let real = resolved(path)?;
        for pattern in [path, real.as_str()] {
            let pattern = glob(pattern)?.compile_matcher();
            if let Some(path) = self.paths.iter().find(|path| pattern.is_match(path)) {
                return Err(refusal(&path.display().to_string()));
            }
        }
        if is_exact(path) {
            if Path::new(&real).is_dir() {
                return Err(format!("it is a folder; {path}/** is all that is in it"));
            }
            if file_at(Path::new(&real)).is_some_and(|inode| self.inodes.contains(&inode)) {
                return Err("it is another name of what this host runs on".to_owned());
            }
        }
        Ok(Some(real).filter(|real| real != path))
    }

    /// Content of an order: refused where this host runs on it.
    ///
    /// # Errors
    /// Why not.
    pub fn refuse_content(&self, sha256: &str) -> Result<(), String> {
        let read = || {
            let (mut seen, mut contents) = (HashSet::new(), HashMap::new());
            for path in &self.programs {
                let Some((file, inode)) = open(path, OFlags::RDONLY | OFlags::NONBLOCK) else {
                    continue;
                };
                if seen.insert(inode)
                    && let Some(hash) = hash_of(file.into())
                {
                    contents.insert(hash, path.clone());
                }
            }
            contents
        };
        match self.contents.get_or_init(read).get(sha256) {
            Some(path) => Err(refusal(&path.display().to_string())),
            None => Ok(()),
        }
    }
}

/// A path without the symbolic links of its folders and, where it is exact, of its own; what is not
/// there is taken as it is.
fn resolved(path: &str) -> Result<String, String> {
    let plain = path.find(['*', '?', '[', '{', '\\']).unwrap_or(path.len());
    // What is certain of a pattern ends with a folder.
    let end = if plain == path.len() { plain } else { path[..plain].rfind('/').unwrap_or(0) };
    let (certain, rest) = path.split_at(end);
    for place in Path::new(certain).ancestors() {
        let Ok(real) = place.canonicalize() else { continue };
        let beyond = Path::new(certain).strip_prefix(place).unwrap_or(Path::new(""));
        let whole = real.join(beyond);
        let whole = whole.to_str().ok_or("it leads to a name that is not UTF-8")?;
        // What lies there may have signs of a pattern in its name.
        let whole = if rest.is_empty() { whole.to_owned() } else { globset::escape(whole) };
        return Ok(format!("{}{rest}", whole.trim_end_matches('/')));
    }
    Ok(path.to_owned())
}

/// The regular file that lies there, links not followed at any place of the path.
#[must_use]
pub fn file_at(path: &Path) -> Option<Inode> {
    open(path, OFlags::PATH).map(|(_, inode)| inode)
}

fn open(path: &Path, flags: OFlags) -> Option<(std::os::fd::OwnedFd, Inode)> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = rustix::fs::ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), resolve).ok()?;
    let facts = Facts::of(file.as_fd()).ok().filter(|facts| facts.regular)?;
    let inode = inode_of(&facts);
    Some((file, inode))
}

fn hash_of(file: std::fs::File) -> Option<String> {
    if file.metadata().ok()?.len() > LARGEST {
        return None;
    }
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; 256 << 10]);
    let mut file = file.take(LARGEST);
    loop {
        match file.read(&mut chunk).ok()? {
            0 => return Some(to_hex(&digest.finalize())),
            read => digest.update(&chunk[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn denial(kind: DenialKind, value: &str) -> Denial {
        Denial {
            id: None,
            kind,
            value: value.to_owned(),
            why: "a test".to_owned(),
            since_ms: 1,
            until_ms: None,
        }
    }

    fn path(value: &Path) -> Denial {
        denial(DenialKind::Path, value.to_str().expect("text"))
    }

    #[test]
    fn orders_are_there_after_a_restart_and_the_managers_take_the_place_of_its_own_alone() {
        let state = tempfile::tempdir().expect("folder");
        let orders = Orders::open(state.path()).expect("none");
        let own = denial(DenialKind::Path, "/srv/own");
        assert!(orders.add(own.clone()).expect("add") && !orders.add(own).expect("again"));
        let hash = "ab".repeat(32);
        let fleet = |through, values: &[(DenialKind, &str)]| FleetDenials {
            through,
            denials: values
                .iter()
                .map(|(kind, value)| Denial { id: Some(Uuid::nil()), ..denial(*kind, value) })
                .collect(),
        };
        let both = [(DenialKind::Hash, hash.as_str()), (DenialKind::Path, "/srv/theirs")];
        orders.take(fleet(7, &both)).expect("taken");
        let orders = Orders::open(state.path()).expect("again");
        assert_eq!((orders.through(), orders.list().len()), (7, 3));
        assert_eq!(orders.hashes()[0].sha256, hash);
        orders.take(fleet(8, &both[1..])).expect("taken");
        assert_eq!((orders.through(), orders.list().len()), (8, 2));
        assert!(orders.hashes().is_empty());
        assert!(!orders.remove("/srv/theirs").expect("the manager's"), "not this host's to remove");
        assert!(orders.remove("/srv/own").expect("remove"));
        assert!(orders.take(fleet(9, &vec![both[1]; MOST + 1])).is_err());
        assert_eq!(orders.through(), 8);
        assert_eq!(orders.problem(), None);
    }

    #[test]
    fn damaged_orders_are_set_aside_and_told_of_and_nothing_waits_for_them() {
        let state = tempfile::tempdir().expect("folder");
        std::fs::write(state.path().join(FILE), "{").expect("write");
        for _ in 0..2 {
            let orders = Orders::open(state.path()).expect("begins all the same");
            assert_eq!((orders.through(), orders.list().len()), (0, 0));
            assert!(orders.problem().is_some_and(|why| why.contains("set aside")));
        }
        assert_eq!(std::fs::read(state.path().join(DAMAGED)).expect("kept"), b"{");
    }

    #[test]
    fn an_order_ends_at_its_time_and_the_number_of_patterns_is_bounded() {
        let state = tempfile::tempdir().expect("folder");
        let orders = Orders::open(state.path()).expect("none");
        let now = crate::now_ms();
        let until = |until_ms| Denial { until_ms, ..denial(DenialKind::Path, "/srv/x") };
        assert!(orders.add(until(Some(now + 3_600_000))).expect("for an hour"));
        assert!(!orders.add(until(Some(now + 1_800_000))).expect("for less"));
        assert!(orders.add(until(None)).expect("for ever"));
        assert_eq!(orders.list().len(), 1);
        let over = Denial { until_ms: Some(now - 1), ..denial(DenialKind::Path, "/srv/y") };
        assert!(orders.add(over).expect("over"));
        assert_eq!(orders.list().len(), 1, "what has ended stands in no list");
        for number in 0..MOST_PATTERNS {
            let pattern = format!("/srv/{number}/*");
            assert!(orders.add(denial(DenialKind::Path, &pattern)).expect("pattern"));
        }
        let full = orders.add(denial(DenialKind::Path, "/srv/more/*")).expect_err("too many");
        assert!(full.contains("lift some"), "{full}");
        assert!(orders.add(denial(DenialKind::Path, "/srv/more")).expect("exact"));
        let many = (0..=MOST_PATTERNS).map(|n| denial(DenialKind::Path, &format!("/srv/{n}/**")));
        let list = FleetDenials { through: 3, denials: many.collect() };
        assert!(orders.take(list).is_err());
    }

    #[test]
    fn what_this_host_runs_on_is_refused_under_every_name_and_by_its_content() {
        let state = tempfile::tempdir().expect("folder");
        let folder = tempfile::tempdir().expect("folder");
        let real = folder.path().canonicalize().expect("real");
        let orders = Orders::open(state.path()).expect("none");
        let own = std::env::current_exe().expect("own");
        let pattern = own.with_file_name("*");
        std::os::unix::fs::symlink(&own, real.join("soft")).expect("link");
        std::os::unix::fs::symlink("/usr/bin", real.join("programs")).expect("link");
        for bad in [own.clone(), pattern, real.join("soft"), real.join("programs/bash")] {
            let why = orders.add(path(&bad)).expect_err(&bad.display().to_string());
            assert!(why.contains("runs") || why.contains("run or"), "{}: {why}", bad.display());
        }
        assert!(orders.add(path(&real.join("programs/*"))).is_err());
        let folder = orders.add(path(&real)).expect_err("a folder");
        assert!(folder.contains("/** is all"), "{folder}");
        let hash = hash_of(std::fs::File::open(&own).expect("open")).expect("hash");
        let essentials = orders.essentials();
        let order = Order::new(denial(DenialKind::Hash, &hash), || &essentials);
        assert!(order.refused.is_some_and(|why| why.contains("run or be mended")));
    }

    #[test]
    fn links_are_followed_when_it_is_ordered_and_never_again() {
        let state = tempfile::tempdir().expect("folder");
        let folder = tempfile::tempdir().expect("folder");
        let real = folder.path().canonicalize().expect("real");
        std::fs::create_dir(real.join("true")).expect("folder");
        std::os::unix::fs::symlink(real.join("true"), real.join("link")).expect("link");
        let orders = Orders::open(state.path()).expect("none");
        for (name, resolved) in
            [("link/x", Some("true/x")), ("true/y", None), ("link/*.so", Some("true/*.so"))]
        {
            assert!(orders.add(path(&real.join(name))).expect(name));
            let last = orders.list().pop().expect("it");
            let wanted = resolved.map(|name| real.join(name).to_str().expect("text").to_owned());
            assert_eq!(last.real, wanted, "{name}");
        }
        std::fs::write(real.join("true/x"), "x").expect("write");
        assert!(file_at(&real.join("true/x")).is_some());
        assert!(file_at(&real.join("link/x")).is_none(), "through a link");
        assert!(file_at(&real.join("true")).is_none(), "a folder");
    }
}
