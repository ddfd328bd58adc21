//! What is marked: the folders on the way to every listed file, and the files themselves.
//!
//! Each folder knows how far into which rules it leads, so that a name that appears in it is
//! looked up by one comparison a rule: a listed file is marked, a folder on the way is entered.
//! Invariant: a folder is marked before it is listed, so that nothing appears unseen; the
//! maps are bounded, and what found no place is counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::list::{Class, Fit, Part, Rule, Tell};
use super::reach::{Kind, Reach, Reached};
use crate::sys::notice::{Fid, Happened, Notice, NoticeGroup, Place, fid_of};

/// Folders that are marked.
pub(super) const MOST_FOLDERS: usize = 8192;
/// Files that are marked.
pub(super) const MOST_FILES: usize = 16_384;
/// Names of one folder that are looked at.
pub(super) const MOST_NAMES: usize = 16_384;
/// Logs whose size is remembered.
pub(super) const MOST_SIZES: usize = 4096;
/// Deepest folder, in components.
const MOST_DEPTH: usize = 32;
/// Marks on what is not listed any more, before all are made anew.
const MOST_STALE: usize = 512;

/// Something happened to a listed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touch {
    pub(super) acts: Vec<Act>,
    pub(super) path: PathBuf,
    /// Its name before.
    pub(super) from: Option<PathBuf>,
    pub(super) class: Class,
    /// Permission bits after it.
    pub(super) mode: Option<u32>,
}

/// What, in the order in which one process can have done it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Act {
    Created,
    Renamed,
    Opened,
    ClosedRead,
    Wrote,
    ClosedWrite,
    /// A log is shorter than it was.
    Cut,
    /// A log has changed without growing.
    Overwrote,
    Attributes,
    /// The number of its names.
    Links,
    Deleted,
}

/// Rule and number of components that lead here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stand {
    rule: usize,
    at: usize,
}

struct Folder {
    /// As the list has it.
    path: PathBuf,
    /// Without links.
    real: PathBuf,
    stands: Vec<Stand>,
}

struct Listed {
    path: PathBuf,
    real: PathBuf,
    class: Class,
    tell: Tell,
}

/// What is remembered of a log.
struct Log {
    size: u64,
    /// Without links.
    folder: PathBuf,
    class: Class,
}

/// A folder that is being looked at.
struct Spot<'a> {
    at: &'a Reached,
    path: &'a Path,
    real: &'a Path,
}

pub(super) struct Tree {
    pub(super) group: Arc<NoticeGroup>,
    pub(super) reach: Reach,
    rules: Vec<Rule>,
    folders: HashMap<Fid, Folder>,
    files: HashMap<Fid, Listed>,
    sizes: HashMap<PathBuf, Log>,
    stale: usize,
    /// Files and folders that found no place.
    pub(super) left_out: u64,
    /// Why marks were refused, and how often.
    pub(super) refused: BTreeMap<String, u64>,
    /// All should be walked again.
    pub(super) again: bool,
}

impl Tree {
    pub(super) fn new(group: NoticeGroup, rules: Vec<Rule>) -> Self {
        Self {
            group: Arc::new(group),
            reach: Reach::default(),
            rules,
            folders: HashMap::new(),
            files: HashMap::new(),
            sizes: HashMap::new(),
            stale: 0,
            left_out: 0,
            refused: BTreeMap::new(),
            again: true,
        }
    }

    pub(super) fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
        self.again = true;
    }

    /// Number of folders and files that are marked.
    pub(super) fn marked(&self) -> (usize, usize) {
        (self.folders.len(), self.files.len())
    }

    /// Makes the marks agree with the file system as it is now. Returns the former group when
    /// there were too many useless marks in it: what waits there is to be read, then it can go.
    pub(super) fn walk(&mut self) -> Option<Arc<NoticeGroup>> {
        self.again = false;
        let new = (self.stale > MOST_STALE).then(NoticeGroup::new).and_then(Result::ok);
        let former = new.map(|new| std::mem::replace(&mut self.group, Arc::new(new)));
        let before: HashSet<Fid> = self
            .folders
            .drain()
            .map(|(fid, _)| fid)
            .chain(self.files.drain().map(|(fid, _)| fid))
            .collect();
        self.sizes.clear();
        self.left_out = 0;
        self.refused.clear();
        self.reach.forget();
        let stands = (0..self.rules.len()).map(|rule| Stand { rule, at: 0 }).collect();
        let root = Path::new("/");
        if let Some(at) = self.reach.real(root) {
            self.enter(&Spot { at: &at, path: root, real: root }, stands, &mut Vec::new());
        }
        let known = |fid: &&Fid| !self.folders.contains_key(*fid) && !self.files.contains_key(*fid);
        self.stale =
            if former.is_some() { 0 } else { self.stale + before.iter().filter(known).count() };
        former
    }

    /// Marks a folder and looks at what is in it. `found` gets the listed files.
    fn enter(&mut self, spot: &Spot<'_>, stands: Vec<Stand>, found: &mut Vec<(PathBuf, Class)>) {
        if spot.real.components().count() > MOST_DEPTH || self.folders.len() >= MOST_FOLDERS {
            self.left_out += 1;
            return;
        }
        let stands = match fid_of(spot.at.fd.as_fd()) {
            Ok(fid) => self.mark_folder(fid, spot, stands),
            Err(error) => {
                self.refuse(&error);
                stands
            }
        };
        if stands.is_empty() {
            return;
        }
        let plain: Option<HashSet<&[u8]>> = stands
            .iter()
            .map(|stand| match self.rules[stand.rule].part(stand.at) {
                Some(Part::Name(name)) => Some(name.as_slice()),
                Some(Part::Glob(_) | Part::Below) | None => None,
            })
            .collect();
        let names: Vec<Vec<u8>> = match plain {
            Some(names) => names.into_iter().map(<[u8]>::to_vec).collect(),
            None => {
                let (names, complete) = self.reach.names(spot.at.fd.as_fd(), MOST_NAMES);
                self.left_out += u64::from(!complete);
                names
            }
        };
        for name in names {
            self.consider(spot, &stands, &name, found);
        }
    }

    /// Returns the stands that are new for this folder.
    fn mark_folder(&mut self, fid: Fid, spot: &Spot<'_>, stands: Vec<Stand>) -> Vec<Stand> {
        let known = self.folders.get(&fid).map(|folder| folder.stands.clone()).unwrap_or_default();
        let new: Vec<Stand> = stands.into_iter().filter(|stand| !known.contains(stand)).collect();
        if new.is_empty() {
            return new;
        }
        let mut what = Happened::CREATE
            | Happened::DELETE
            | Happened::RENAME
            | Happened::DELETE_SELF
            | Happened::MOVE_SELF
            | Happened::ON_DIR;
        for stand in new.iter().filter(|stand| self.rules[stand.rule].ends_in(stand.at)) {
            what |= Happened::ON_CHILD | Happened::ATTRIB | Happened::CLOSE_WRITE;
            if matches!(self.rules[stand.rule].tell, Tell::Reads | Tell::Writes) {
                what |= Happened::MODIFY;
            }
        }
        if let Err(error) = self.group.watch(spot.at.fd.as_fd(), what) {
            self.refuse(&error);
            return new;
        }
        let folder = self.folders.entry(fid).or_insert_with(|| Folder {
            path: spot.path.to_owned(),
            real: spot.real.to_owned(),
            stands: Vec::new(),
        });
        folder.stands.extend(&new);
        new
    }

    /// One name in a folder.
    fn consider(
        &mut self,
        spot: &Spot<'_>,
        stands: &[Stand],
        name: &[u8],
        found: &mut Vec<(PathBuf, Class)>,
    ) {
        let (last, next) = self.fits(stands, name);
        if last.is_none() && next.is_empty() {
            return;
        }
        let Some(child) = self.reach.step(spot.at.fd.as_fd(), name) else { return };
        let name = OsStr::from_bytes(name);
        let path = spot.path.join(name);
        match child.kind {
            Kind::Folder => {
                let real = spot.real.join(name);
                self.enter_some(&Spot { at: &child, path: &path, real: &real }, next, found);
            }
            Kind::Regular => {
                let real = spot.real.join(name);
                self.list(last, &Spot { at: &child, path: &path, real: &real }, spot.at.uid, found);
            }
            Kind::Link => {
                let Some((target, real)) = self.reach.follow(spot.real, child.fd.as_fd()) else {
                    return;
                };
                // Nobody makes us watch others' files by a link in a folder of their own.
                if spot.at.uid != 0 && target.uid != spot.at.uid {
                    return;
                }
                let to = Spot { at: &target, path: &path, real: &real };
                match target.kind {
                    Kind::Folder => self.enter_some(&to, next, found),
                    Kind::Regular => self.list(last, &to, spot.at.uid, found),
                    Kind::Link | Kind::Other => {}
                }
            }
            Kind::Other => {}
        }
    }

    fn enter_some(&mut self, spot: &Spot<'_>, next: Vec<Stand>, found: &mut Vec<(PathBuf, Class)>) {
        if !next.is_empty() {
            self.enter(spot, next, found);
        }
    }

    /// A listed file: remembered, and marked unless its folder's mark has to do.
    fn list(
        &mut self,
        rule: Option<Stand>,
        file: &Spot<'_>,
        folder_uid: u32,
        found: &mut Vec<(PathBuf, Class)>,
    ) {
        let Some(stand) = rule else { return };
        let rule = &self.rules[stand.rule];
        let (class, tell) = (rule.class, rule.tell);
        let below = matches!(rule.part(stand.at), Some(Part::Below));
        found.push((file.path.to_owned(), class));
        if tell == Tell::Cuts {
            if self.sizes.len() < MOST_SIZES {
                let folder = file.real.parent().unwrap_or(file.real).to_owned();
                let log = Log { size: file.at.size, folder, class };
                self.sizes.insert(file.path.to_owned(), log);
            } else {
                self.left_out += 1;
            }
        }
        if below {
            return;
        }
        if self.files.len() >= MOST_FILES {
            self.left_out += 1;
            return;
        }
        let mut what = Happened::CLOSE_WRITE | Happened::ATTRIB | Happened::DELETE_SELF;
        if file.real.file_name() != file.path.file_name() {
            what |= Happened::MOVE_SELF;
        }
        // Not for somebody else's file under a name in a user's folder (a hard link).
        if tell == Tell::Reads && (folder_uid == 0 || file.at.uid == folder_uid) {
            what |= Happened::OPEN | Happened::CLOSE_NOWRITE;
        }
        if matches!(tell, Tell::Reads | Tell::Writes) {
            what |= Happened::MODIFY;
        }
        let marked =
            self.group.watch(file.at.fd.as_fd(), what).and_then(|()| fid_of(file.at.fd.as_fd()));
        match marked {
            Ok(fid) => {
                let listed =
                    Listed { path: file.path.to_owned(), real: file.real.to_owned(), class, tell };
                self.files.insert(fid, listed);
            }
            Err(error) => self.refuse(&error),
        }
    }

    /// The first rule that lists this name, and where a folder of this name leads to.
    fn fits(&self, stands: &[Stand], name: &[u8]) -> (Option<Stand>, Vec<Stand>) {
        let (mut last, mut next) = (None, Vec::new());
        for stand in stands {
            let rule = &self.rules[stand.rule];
            let fit = rule.fit(stand.at, name);
            if matches!(fit, Fit::Last | Fit::Both) {
                last = last.or(Some(*stand));
            }
            if matches!(fit, Fit::Way | Fit::Both) {
                next.push(Stand { rule: stand.rule, at: rule.next(stand.at) });
            }
        }
        (last, next)
    }

    fn refuse(&mut self, error: &std::io::Error) {
        *self.refused.entry(error.to_string()).or_default() += 1;
    }

    // ---- what happens ----------------------------------------------------------------------

    /// Keeps the marks right, and says what happened to listed files.
    pub(super) fn happened(&mut self, notice: &Notice) -> Vec<Touch> {
        if notice.happened.any(Happened::ON_DIR) {
            self.folder_happened(notice)
        } else {
            self.file_happened(notice)
        }
    }

    fn folder_happened(&mut self, notice: &Notice) -> Vec<Touch> {
        let happened = notice.happened;
        let mut touches = Vec::new();
        if happened.any(Happened::ATTRIB) {
            touches.extend(self.folder_attributes(notice));
        }
        let gone = if happened.any(Happened::RENAME) {
            notice.former.as_ref()
        } else {
            notice.place.as_ref().filter(|_| happened.any(Happened::DELETE))
        };
        if let Some(gone) = gone.and_then(|place| self.path_of(place)) {
            touches.extend(self.left(&gone, notice));
        }
        if happened.any(Happened::CREATE | Happened::RENAME)
            && let Some(place) = &notice.place
        {
            let act = if happened.any(Happened::CREATE) { Act::Created } else { Act::Renamed };
            touches.extend(self.appeared(place).into_iter().map(|(path, class)| Touch {
                acts: vec![act],
                path,
                from: None,
                class,
                mode: None,
            }));
        }
        // Under its parent's mark it has been forgotten before; it moved by a way not watched.
        let itself = notice.file.as_ref().or(notice.place.as_ref().map(|place| &place.folder));
        if happened.any(Happened::DELETE_SELF | Happened::MOVE_SELF)
            && itself.is_some_and(|fid| self.folders.contains_key(fid))
        {
            self.again = true;
        }
        touches
    }

    fn folder_attributes(&self, notice: &Notice) -> Option<Touch> {
        let folder = notice.file.as_ref().and_then(|fid| self.folders.get(fid)).or_else(|| {
            let place = notice.place.as_ref().filter(|place| place.name == b".")?;
            self.folders.get(&place.folder)
        })?;
        let ends = folder.stands.iter().find(|stand| self.rules[stand.rule].ends_in(stand.at))?;
        Some(Touch {
            acts: vec![Act::Attributes],
            path: folder.path.clone(),
            from: None,
            class: self.rules[ends.rule].class,
            mode: self.reach.real(&folder.real).map(|now| now.mode),
        })
    }

    /// A folder is not where it was: what lay below is not listed any more.
    fn left(&mut self, path: &Path, notice: &Notice) -> Option<Touch> {
        let watched = self.folders.values().find(|folder| folder.path == path);
        let ends = watched.and_then(|folder| {
            folder.stands.iter().find(|stand| self.rules[stand.rule].ends_in(stand.at)).copied()
        });
        let moved = notice.happened.any(Happened::RENAME);
        let before = self.folders.len() + self.files.len();
        self.folders.retain(|_, folder| !folder.path.starts_with(path));
        self.files.retain(|_, file| !file.path.starts_with(path));
        self.sizes.retain(|file, _| !file.starts_with(path));
        if moved {
            self.stale += before - self.folders.len() - self.files.len();
            self.again |= self.stale > MOST_STALE;
        }
        let class = self.rules[ends.filter(|_| moved)?.rule].class;
        let to = notice.place.as_ref().and_then(|place| self.path_of(place));
        Some(Touch {
            acts: vec![Act::Renamed],
            path: to.unwrap_or_else(|| path.to_owned()),
            from: Some(path.to_owned()),
            class,
            mode: None,
        })
    }

    /// A name has appeared in a watched folder. Returns the listed files that it brought.
    fn appeared(&mut self, place: &Place) -> Vec<(PathBuf, Class)> {
        let mut found = Vec::new();
        let Some(folder) = self.folders.get(&place.folder) else { return found };
        let (path, real, stands) =
            (folder.path.clone(), folder.real.clone(), folder.stands.clone());
        let Some(at) = self.reach.real(&real).filter(|at| at.kind == Kind::Folder) else {
            return found;
        };
        let spot = Spot { at: &at, path: &path, real: &real };
        self.consider(&spot, &stands, &place.name, &mut found);
        found
    }

    fn file_happened(&mut self, notice: &Notice) -> Vec<Touch> {
        let happened = notice.happened;
        if happened.any(Happened::RENAME) {
            return self.file_renamed(notice).into_iter().collect();
        }
        let touch = self.file_touched(notice);
        if happened.any(Happened::CREATE)
            && let Some(place) = &notice.place
        {
            let _ = self.appeared(place);
        }
        if happened.any(Happened::DELETE_SELF | Happened::MOVE_SELF)
            && let Some(fid) = &notice.file
            && let Some(file) = self.files.get(fid)
        {
            // What a link led to is another file now.
            self.again |= file.real.file_name() != file.path.file_name();
            if happened.any(Happened::DELETE_SELF) {
                self.files.remove(fid);
            }
        }
        touch.into_iter().collect()
    }

    fn file_touched(&mut self, notice: &Notice) -> Option<Touch> {
        let happened = notice.happened;
        let by_name = happened.any(Happened::CREATE | Happened::DELETE);
        let marked = notice.file.as_ref().and_then(|fid| self.files.get(fid)).filter(|_| !by_name);
        let (path, real, class, tell) = match marked {
            Some(file) => (file.path.clone(), file.real.clone(), file.class, file.tell),
            None => self.listed_at(notice.place.as_ref()?)?,
        };
        let mut acts = Vec::new();
        let mut add = |bit, act| {
            if happened.any(bit) {
                acts.push(act);
            }
        };
        add(Happened::CREATE, Act::Created);
        if tell != Tell::Cuts {
            add(Happened::OPEN, Act::Opened);
            add(Happened::CLOSE_NOWRITE, Act::ClosedRead);
            add(Happened::MODIFY, Act::Wrote);
            add(Happened::CLOSE_WRITE, Act::ClosedWrite);
        }
        // Without a name it is not by a name: the number of names has changed.
        let attributes = if notice.place.is_some() { Act::Attributes } else { Act::Links };
        add(Happened::ATTRIB, attributes);
        add(Happened::DELETE, Act::Deleted);
        let stays = !happened.any(Happened::DELETE)
            && happened.any(
                Happened::CREATE | Happened::ATTRIB | Happened::MODIFY | Happened::CLOSE_WRITE,
            );
        let now = if stays { self.now_at(&real, notice.file.as_ref()) } else { None };
        if tell == Tell::Cuts {
            if let (Some(now), true) =
                (&now, happened.any(Happened::CLOSE_WRITE | Happened::MODIFY))
            {
                acts.extend(self.compare(&path, &real, class, now.size));
            }
            if happened.any(Happened::DELETE) {
                self.sizes.remove(&path);
            }
        }
        (!acts.is_empty()).then(|| Touch {
            acts,
            path,
            from: None,
            class,
            mode: now.map(|now| now.mode),
        })
    }

    fn file_renamed(&mut self, notice: &Notice) -> Option<Touch> {
        let new = notice.place.as_ref();
        let to = new.and_then(|place| self.path_of(place));
        let from = notice.former.as_ref().and_then(|place| self.path_of(place));
        let listed = new.and_then(|place| self.listed_at(place));
        let was = notice.former.as_ref().and_then(|place| self.listed_at(place));
        if let Some((path, real, class, _)) = listed {
            // Whoever had this name is replaced.
            let replaced = |file: &Listed| file.path == path;
            self.stale += self.files.values().filter(|file| replaced(file)).count();
            self.files.retain(|_, file| !replaced(file));
            let size = self.sizes.get(&path).map(|log| log.size);
            let _ = new.map(|place| self.appeared(place));
            let now = self.now_at(&real, notice.file.as_ref());
            let mut acts = vec![Act::Renamed];
            if let (Some(before), Some(now)) = (size, &now)
                && now.size < before
            {
                acts.push(Act::Cut);
            }
            return Some(Touch { acts, path, from, class, mode: now.map(|now| now.mode) });
        }
        let (path, _, class, _) = was?;
        self.sizes.remove(&path);
        if let Some(file) = notice.file.as_ref().and_then(|fid| self.files.get_mut(fid))
            && let Some(to) = &to
        {
            file.path.clone_from(to);
        }
        let to = to.unwrap_or_else(|| path.clone());
        Some(Touch { acts: vec![Act::Renamed], path: to, from: Some(path), class, mode: None })
    }

    /// Path, path without links, class and what is told of a listed name.
    fn listed_at(&self, place: &Place) -> Option<(PathBuf, PathBuf, Class, Tell)> {
        let folder = self.folders.get(&place.folder)?;
        let (last, _) = self.fits(&folder.stands, &place.name);
        let rule = &self.rules[last?.rule];
        let name = OsStr::from_bytes(&place.name);
        Some((folder.path.join(name), folder.real.join(name), rule.class, rule.tell))
    }

    fn path_of(&self, place: &Place) -> Option<PathBuf> {
        let folder = self.folders.get(&place.folder)?;
        Some(folder.path.join(OsStr::from_bytes(&place.name)))
    }

    /// The file as it is now, if it is still the one that the event is about.
    fn now_at(&self, real: &Path, file: Option<&Fid>) -> Option<Reached> {
        let folder = self.reach.real(real.parent()?)?;
        let now = self.reach.step(folder.fd.as_fd(), real.file_name()?.as_bytes())?;
        let same = file.is_none_or(|file| fid_of(now.fd.as_fd()).is_ok_and(|fid| fid == *file));
        same.then_some(now)
    }

    /// What a log's size says, and remembers it.
    fn compare(&mut self, path: &Path, real: &Path, class: Class, size: u64) -> Option<Act> {
        let Some(log) = self.sizes.get_mut(path) else {
            if self.sizes.len() < MOST_SIZES {
                let folder = real.parent().unwrap_or(real).to_owned();
                self.sizes.insert(path.to_owned(), Log { size, folder, class });
            }
            return None;
        };
        let was = std::mem::replace(&mut log.size, size);
        match size.cmp(&was) {
            std::cmp::Ordering::Less => Some(Act::Cut),
            std::cmp::Ordering::Equal if was > 0 => Some(Act::Overwrote),
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => None,
        }
    }

    /// Looks at the size of every log: a daemon that holds one open never closes it, and
    /// `truncate(2)` opens nothing. Who cut it is not known then.
    pub(super) fn look_at_sizes(&mut self) -> Vec<Touch> {
        let mut touches = Vec::new();
        let mut folders: HashMap<&Path, Option<Reached>> = HashMap::new();
        for (path, log) in &mut self.sizes {
            let Log { size, folder, class } = log;
            let at = folders.entry(folder).or_insert_with_key(|folder| self.reach.real(folder));
            let (Some(at), Some(name)) = (at, path.file_name()) else { continue };
            let Some(now) = self.reach.step(at.fd.as_fd(), name.as_bytes()) else { continue };
            if now.kind != Kind::Regular {
                continue;
            }
            if now.size < *size {
                touches.push(Touch {
                    acts: vec![Act::Cut],
                    path: path.clone(),
                    from: None,
                    class: *class,
                    mode: Some(now.mode),
                });
            }
            *size = now.size;
        }
        touches
    }
}
