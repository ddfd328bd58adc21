//! One scan from its first place to its last: walk, open, scan, act.
//!
//! INVARIANT: nothing held waits for a scan. It has a worker of its own, never one of those that
//! held opens are given to; that worker has the processor and the disk only when nobody else wants
//! them (a scan that somebody waits for: after everybody else), and the whole keeps to its share of
//! one core. A file is named twice for people alone: what is scanned, judged and sealed is the one
//! that the walk holds open.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_common::control::Reply;
use holdfast_common::scans::{LeftOutReason, ScanEstimate, ScanFind, ScanScope};
use holdfast_common::verdict::{ScanType, Verdict};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::late::late_find;
use super::line::Inner;
use super::live::{End, Halt, Live, Pace, cut, shown};
use super::places::{self, Place};
use super::walk::{Visit, walk};
use super::{Needs, rules};
use crate::control::Answerer;
use crate::now_ms;
use crate::respond::{Judged, Respond};
use crate::scan::{ScanFailed, Scanned, Worker};
use crate::sys::identity::Facts;
use crate::sys::priority::{self, Disk};

/// Between two looks at whether somebody still listens, and two progress replies.
const TELL: Duration = Duration::from_millis(200);
/// Between two notes in the history.
const NOTE: Duration = Duration::from_secs(2);
/// Files with several names that are remembered; further ones may be scanned once a name.
const MOST_LINKS: usize = 262_144;

impl Halt for Worker {
    fn suspend(&self) {
        Self::suspend(self);
    }
    fn resume(&self) {
        Self::resume(self);
    }
}

/// A scan that runs.
pub(super) struct Sweep<'a> {
    /// What it goes by may change while it runs.
    inner: &'a Inner,
    needs: &'a Needs,
    respond: &'a Respond,
    history: &'a super::history::History,
    live: &'a Live,
    answer: &'a mut dyn Answerer,
    pace: Pace<'a>,
    worker: Option<Worker>,
    /// In the background: idle; else last in line.
    background: bool,
    scan_type: ScanType,
    /// Files with several names, and programs, that were scanned.
    seen: HashSet<((u32, u32), u64)>,
    told: Instant,
    noted: Instant,
    /// Files expected in all, and what says so.
    expected: Option<(u64, &'static str)>,
    /// Files that took the place of the expected ones so far.
    met: u64,
}

/// Who shares a scan's work.
pub(super) struct Parts<'a> {
    pub(super) inner: &'a Inner,
    pub(super) needs: &'a Needs,
    pub(super) respond: &'a Respond,
    pub(super) history: &'a super::history::History,
    pub(super) live: &'a Live,
    pub(super) answer: &'a mut dyn Answerer,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(parts: Parts<'a>, background: bool) -> Self {
        let Parts { inner, needs, respond, history, live, answer } = parts;
        let (share, scan_type) = {
            let record = live.record();
            let scheduled = record.schedule.is_some();
            let kind = if scheduled { ScanType::Scheduled } else { ScanType::OnDemand };
            (record.cpu_share, kind)
        };
        Self {
            inner,
            needs,
            respond,
            history,
            live,
            answer,
            pace: Pace::new(live, share),
            worker: None,
            background,
            scan_type,
            seen: HashSet::new(),
            told: Instant::now(),
            noted: Instant::now(),
            expected: None,
            met: 0,
        }
    }

    /// Looks at every place.
    pub(super) fn run(mut self, plan: places::Plan) -> Result<(), End> {
        // Its walk reads folders; finds are sealed as fast as any.
        self.disk(if self.background { Disk::Idle } else { Disk::Low });
        if let Err(error) = rules::note(self.history, &self.needs.factory) {
            tracing::warn!(error = crate::error_chain(&error), "the rules' history is not kept");
        }
        self.expect(&plan);
        for (path, why, cause) in plan.refused {
            self.left_out(&path, why, cause);
        }
        let mut ended = Ok(());
        for place in &plan.places {
            ended = self.place(place);
            if ended.is_err() {
                break;
            }
        }
        self.disk(Disk::Normal);
        let mut record = self.live.record();
        record.running_ms = milliseconds(self.pace.ran());
        record.at.clear();
        record.estimate = None;
        ended
    }

    fn place(&mut self, place: &Place) -> Result<(), End> {
        if matches!(place, Place::Programs) {
            return self.programs();
        }
        match place.open() {
            Ok(Some((path, handle))) => walk(&path, handle, place.crosses_mounts(), self),
            Ok(None) => Ok(()),
            Err((path, why, cause)) => {
                self.left_out(&path, why, cause);
                self.step()
            }
        }
    }

    /// What runs, by the kernel's own link: deleted ones and those of containers too.
    fn programs(&mut self) -> Result<(), End> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Ok(()) };
        for entry in processes.flatten() {
            let name = entry.file_name();
            if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            self.step()?;
            let link = entry.path().join("exe");
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            // The kernel's own threads have none; others are gone.
            let Ok(handle) = rustix::fs::open(&link, flags, Mode::empty()) else { continue };
            let Ok(facts) = Facts::of(handle.as_fd()) else { continue };
            if !self.seen.insert((facts.identity.device, facts.identity.inode)) {
                continue;
            }
            let path = std::fs::read_link(&link).unwrap_or(link);
            self.regular(&path, &handle, &facts)?;
        }
        Ok(())
    }

    /// How many files there are, as far as something tells.
    fn expect(&mut self, plan: &places::Plan) {
        let record = self.live.record().clone();
        if let Ok(Some(last)) = self.history.last_alike(&record)
            && last.progress.files > 0
        {
            self.expected = Some((last.progress.files, "last scan"));
            return;
        }
        if record.scope == ScanScope::Full {
            let used = plan.places.iter().filter_map(|place| match place {
                Place::Mounted(mount) => {
                    let sizes = rustix::fs::statvfs(&mount.point).ok()?;
                    Some(sizes.f_files.saturating_sub(sizes.f_ffree))
                }
                Place::Programs | Place::Named { .. } | Place::InHome { .. } => None,
            });
            self.expected = Some((used.sum(), "file systems")).filter(|(files, _)| *files > 0);
        }
    }

    /// A regular file, held by a descriptor that reads nothing.
    fn regular(&mut self, path: &Path, handle: &OwnedFd, facts: &Facts) -> Result<(), End> {
        if self.needs.exclusions.covers(handle.as_fd(), 0) {
            self.left_out(path, LeftOutReason::Excluded, None);
            return Ok(());
        }
        // Not the name again: what the descriptor holds.
        let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&link, flags | OFlags::NOATIME, Mode::empty())
            .or_else(|_| rustix::fs::open(&link, flags, Mode::empty()));
        match opened {
            Ok(file) => self.scan(path, file, facts),
            Err(error) => {
                self.left_out(path, LeftOutReason::Unreadable, Some(error));
                Ok(())
            }
        }
    }

    fn scan(&mut self, path: &Path, file: OwnedFd, facts: &Facts) -> Result<(), End> {
        self.live.record().at = shown(path);
        self.met += 1;
        let scanned = match self.verdict(&file) {
            Ok(scanned) => scanned?,
            Err((why, cause)) => {
                self.refused(path, why, &cause);
                return Ok(());
            }
        };
        {
            let mut record = self.live.record();
            record.progress.files += 1;
            record.progress.bytes += scanned.read;
        }
        let hashes = scanned.hashes.map(|hashes| hashes.to_hex()).unwrap_or_default();
        let Verdict::Malicious(signature) = scanned.verdict else { return Ok(()) };
        if self.needs.exclusions.allow_content(&hashes.sha256) {
            self.left_out(path, LeftOutReason::Allowed, None);
            return Ok(());
        }
        let mut late = late_find(facts, now_ms());
        late.rule = rules::origin(self.history, &signature, &hashes, late.since_ms);
        // Sealing takes locks that others wait for.
        self.disk(Disk::Normal);
        let path = where_it_is(path, &file);
        let detection = self.respond.act(Judged {
            file,
            path,
            facts: *facts,
            signature,
            hashes,
            scan_type: self.scan_type,
            decision: None,
            quarantine: self.inner.rules().quarantine,
            process: None,
            parents: Vec::new(),
            late: Some(late),
        });
        self.disk(if self.background { Disk::Idle } else { Disk::Low });
        // Not for the prover's marker, which comes and goes while we look.
        let Some(detection) = detection else { return Ok(()) };
        self.live.found(ScanFind {
            path: cut(detection.path.clone()),
            signature: detection.signature.name.clone(),
            sha256: detection.hashes.sha256.clone(),
            disposition: detection.disposition,
            quarantine_id: detection.quarantine_id,
            late: detection.late.as_deref().cloned(),
        });
        self.reply(Reply::ScanFound(Box::new(detection)))
    }

    /// The worker's answer, in turns. The outer error is the file's, the inner the scan's end.
    fn verdict(&mut self, file: &OwnedFd) -> Result<Result<Scanned, End>, (LeftOutReason, String)> {
        let limit = Duration::from_secs(self.inner.rules().config.rescan_limit_s);
        let worker = self.worker().map_err(|error| (LeftOutReason::NoScanner, error))?;
        let died = |worker: Worker, error: &dyn std::error::Error| {
            drop(worker);
            Err((LeftOutReason::ScannerDied, error.to_string()))
        };
        if let Err(error) = worker.begin(false, file.as_fd()) {
            return died(worker, &error);
        }
        let mut used = Duration::ZERO;
        loop {
            let turn = Instant::now();
            match worker.finish(self.pace.turn_ends()) {
                Ok(Some(scanned)) => {
                    self.worker = Some(worker);
                    return Ok(Ok(scanned));
                }
                Ok(None) => {}
                Err(ScanFailed::Unreadable(errno)) => {
                    self.worker = Some(worker);
                    let cause = Errno::from_raw_os_error(errno).to_string();
                    return Err((LeftOutReason::Unreadable, cause));
                }
                Err(error @ (ScanFailed::Died(_) | ScanFailed::TimedOut)) => {
                    return died(worker, &error);
                }
            }
            used += turn.elapsed();
            if used >= limit {
                return Err((LeftOutReason::TooSlow, format!("longer than {} s", limit.as_secs())));
            }
            self.look();
            if let Err(end) = self.pace.step(Some(&worker)) {
                return Ok(Err(end));
            }
        }
    }

    /// One with the current rules, last in line for the processor and the disk.
    fn worker(&mut self) -> Result<Worker, String> {
        let generation = self.needs.factory.generation();
        if let Some(worker) = self.worker.take().filter(|one| one.generation() == generation) {
            return Ok(worker);
        }
        let worker = self.needs.factory.spawn().map_err(|error| crate::error_chain(&error))?;
        let disk = if self.background { Disk::Idle } else { Disk::Low };
        let lowered = priority::set_disk(worker.pid(), disk).and_then(|()| {
            if self.background {
                return priority::set_idle(worker.pid());
            }
            let pid = i32::try_from(worker.pid()).ok().and_then(rustix::process::Pid::from_raw);
            rustix::process::setpriority_process(pid, 10).map_err(std::io::Error::from)
        });
        if let Err(error) = lowered {
            tracing::warn!(%error, "a scan has the priority of everybody");
        }
        Ok(worker)
    }

    fn disk(&self, disk: Disk) {
        // Of the calling thread. Kernels without I/O classes leave it at that.
        let _ = priority::set_disk(0, disk);
    }

    /// A file without a verdict.
    fn refused(&mut self, path: &Path, why: LeftOutReason, cause: &str) {
        self.live.left_out(path, why, Some(cause).filter(|cause| !cause.is_empty()));
        if why.is_failure() {
            let reply = Reply::ScanFailed { path: shown(path), reason: words(why, cause) };
            // Whether anybody listens is asked at the next step.
            let _ = self.answer.reply(reply);
        }
    }

    fn reply(&mut self, reply: Reply) -> Result<(), End> {
        self.answer.reply(reply).map_err(|_| nobody_listens())
    }

    /// From time to time: tell the progress, note it, guess what is left.
    fn look(&mut self) {
        if self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        let ran = self.pace.ran();
        let progress = {
            let mut record = self.live.record();
            record.running_ms = milliseconds(ran);
            record.estimate = self.expected.map(|expected| estimate(expected, self.met, ran));
            record.progress
        };
        if self.answer.reply(Reply::ScanProgress(progress)).is_err() || self.answer.gone() {
            self.live.end(nobody_listens());
        }
        if self.noted.elapsed() >= NOTE {
            self.noted = Instant::now();
            let record = self.live.record().clone();
            if let Err(error) = self.history.put(&record) {
                tracing::warn!(error = crate::error_chain(&error), "a scan is not remembered");
            }
        }
    }
}

impl Visit for Sweep<'_> {
    type End = End;

    fn file(&mut self, path: &Path, handle: OwnedFd) -> Result<(), End> {
        let facts = match Facts::of(handle.as_fd()) {
            Ok(facts) => facts,
            Err(error) => {
                let cause = error.raw_os_error().map(Errno::from_raw_os_error);
                self.left_out(path, LeftOutReason::Unreadable, cause);
                return Ok(());
            }
        };
        let key = (facts.identity.device, facts.identity.inode);
        if facts.links > 1 {
            if self.seen.contains(&key) {
                self.met += 1;
                self.left_out(path, LeftOutReason::HardLink, None);
                return Ok(());
            }
            if self.seen.len() < MOST_LINKS {
                self.seen.insert(key);
            }
        }
        self.regular(path, &handle, &facts)
    }

    fn left_out(&mut self, path: &Path, why: LeftOutReason, cause: Option<Errno>) {
        let cause = cause.map(|cause| cause.to_string());
        self.refused(path, why, cause.as_deref().unwrap_or_default());
    }

    fn step(&mut self) -> Result<(), End> {
        self.look();
        // A worker that has nothing to do needs no rest of its own.
        self.pace.step(None)
    }
}

/// Where the kernel says that a file lies now; folders may have moved since they were walked.
fn where_it_is(walked: &Path, file: &OwnedFd) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let path = crate::respond::path_of(file);
    let same = || {
        let (named, held) = (std::fs::symlink_metadata(&path).ok()?, rustix::fs::fstat(file).ok()?);
        Some((named.dev(), named.ino()) == (held.st_dev, held.st_ino))
    };
    if same().unwrap_or(false) { path } else { walked.to_owned() }
}

fn nobody_listens() -> End {
    End::Cancelled("nobody waits for it any more".to_owned())
}

fn words(why: LeftOutReason, cause: &str) -> String {
    match why {
        LeftOutReason::TooDeep => "folders are nested too deeply".to_owned(),
        LeftOutReason::TooSlow => format!("the scan took too long ({cause})"),
        LeftOutReason::ScannerDied => format!("the scan worker died of it ({cause})"),
        LeftOutReason::NoScanner => format!("no scan worker starts: {cause}"),
        LeftOutReason::Unreadable | LeftOutReason::NotFound => cause.to_owned(),
        LeftOutReason::Symlink
        | LeftOutReason::Special
        | LeftOutReason::Excluded
        | LeftOutReason::PseudoFileSystem
        | LeftOutReason::RemoteFileSystem
        | LeftOutReason::OtherMount
        | LeftOutReason::HardLink
        | LeftOutReason::Vanished
        | LeftOutReason::Allowed => why.name().replace('_', " "),
    }
}

/// As fast as so far.
fn estimate((files, basis): (u64, &str), met: u64, ran: Duration) -> ScanEstimate {
    let files = files.max(met);
    let percent = u8::try_from(met * 100 / files.max(1)).unwrap_or(100).min(99);
    let left_s = (met >= 10).then(|| {
        let each = ran.as_secs_f64() / met as f64;
        (each * (files - met) as f64).ceil() as u64
    });
    ScanEstimate { files, percent, left_s, basis: basis.to_owned() }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_never_done_and_never_backwards_of_what_was_met() {
        let minute = Duration::from_secs(60);
        let half = estimate((200, "last scan"), 100, minute);
        assert_eq!((half.percent, half.left_s, half.files), (50, Some(60), 200));
        let beyond = estimate((200, "last scan"), 500, minute);
        assert_eq!((beyond.percent, beyond.left_s, beyond.files), (99, Some(0), 500));
        assert_eq!(estimate((0, "file systems"), 0, minute).left_s, None);
    }
}
