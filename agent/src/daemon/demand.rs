//! Scans on demand: walk, open, scan, act. No process is held; the agent's own opens pass.
//!
//! INVARIANT: every step goes through a descriptor of the folder above and follows no symlink,
//! so whoever can rename folders under the walk cannot lead it elsewhere. Only regular files are
//! opened; kernel interfaces and remote file systems are left out, counted.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_common::control::{Reply, ScanProgress};
use holdfast_common::process::printable;
use holdfast_common::verdict::{ScanType, Verdict};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::config::Mode as OnAccessMode;
use crate::control::Answerer;
use crate::daemon::Agent;
use crate::journal::Journal;
use crate::respond::{Judged, Respond};
use crate::scan::{ScanFailed, Worker};
use crate::sys::identity::Facts;

/// Folders inside folders. Each open one costs a descriptor.
const MOST_DEPTH: usize = 512;

/// Between two progress replies.
const PROGRESS: Duration = Duration::from_millis(200);

/// `statfs(2)` types that hold no files of people, or that a server serves: proc, sysfs, cgroup,
/// cgroup2, debugfs, tracefs, securityfs, bpf, devpts, FUSE, NFS, CIFS, SMB2, 9p, autofs.
const LEFT_OUT: [i64; 15] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1cd1,
    0x6573_5546,
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x0187,
];

/// One scan on demand.
pub(super) struct DemandScan<'a> {
    agent: &'a Agent,
    answer: &'a mut dyn Answerer,
    respond: Respond,
    worker: Option<Worker>,
    progress: ScanProgress,
    last_progress: Instant,
}

/// The one asking has gone.
struct Gone;

impl<'a> DemandScan<'a> {
    pub(super) fn new(agent: &'a Agent, answer: &'a mut dyn Answerer) -> Self {
        let journal: Journal = agent.journal.clone();
        Self {
            agent,
            answer,
            respond: Respond::new(journal, Arc::clone(&agent.vault), Arc::clone(&agent.witness)),
            worker: None,
            progress: ScanProgress::default(),
            last_progress: Instant::now(),
        }
    }

    pub(super) fn run(mut self, paths: &[PathBuf]) -> Result<(), String> {
        for path in paths {
            if !path.is_absolute() {
                return Err(format!("{} is not an absolute path", printable_path(path)));
            }
            // What people name themselves may be a symlink; what the walk finds may not.
            let root = path.canonicalize().and_then(|real| {
                let handle = rustix::fs::open(
                    &real,
                    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                Ok((real, handle))
            });
            let walked = match root {
                Ok((real, handle)) => self.root(&real, handle),
                Err(error) => self.failed(path, &error.to_string()),
            };
            if walked.is_err() {
                return Ok(());
            }
        }
        let done = Reply::ScanDone(self.progress);
        self.answer.reply(done).map_err(|error| error.to_string())
    }

    fn root(&mut self, path: &Path, handle: OwnedFd) -> Result<(), Gone> {
        let kind = match rustix::fs::fstat(&handle) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(error) => return self.failed(path, &error.to_string()),
        };
        match kind {
            FileType::Directory => self.folder(path, &handle, c".", MOST_DEPTH),
            FileType::RegularFile => match (path.parent(), path.file_name()) {
                (Some(folder), Some(name)) => {
                    let opened =
                        rustix::fs::open(folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
                    match (opened, CString::new(name.as_bytes())) {
                        (Ok(opened), Ok(name)) => self.file(path, &opened, &name),
                        _ => self.failed(path, "its folder cannot be opened"),
                    }
                }
                _ => self.failed(path, "has no name"),
            },
            _ => self.failed(path, "neither a file nor a folder"),
        }
    }

    fn folder(
        &mut self,
        path: &Path,
        parent: &OwnedFd,
        name: &CStr,
        depth: usize,
    ) -> Result<(), Gone> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(error) => return self.failed(path, &error.to_string()),
        };
        let left_out = rustix::fs::fstatfs(&folder).is_ok_and(|fs| LEFT_OUT.contains(&fs.f_type));
        if left_out {
            self.progress.skipped += 1;
            return Ok(());
        }
        if depth == 0 {
            return self.failed(path, "folders are nested too deeply");
        }
        let entries = match Dir::read_from(&folder) {
            Ok(entries) => entries,
            Err(error) => return self.failed(path, &error.to_string()),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return self.failed(path, &error.to_string()),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let below = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            match kind_of(&folder, name) {
                Some(FileType::Directory) => self.folder(&below, &folder, name, depth - 1)?,
                Some(FileType::RegularFile) => self.file(&below, &folder, name)?,
                Some(_) => self.progress.skipped += 1,
                None => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, folder: &OwnedFd, name: &CStr) -> Result<(), Gone> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Ok(file) => file,
            // Gone since the folder was listed.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return self.failed(path, &error.to_string()),
        };
        let facts = match Facts::of(file.as_fd()) {
            Ok(facts) => facts,
            Err(error) => return self.failed(path, &error.to_string()),
        };
        if !facts.regular || self.agent.exclusions.covers(file.as_fd(), 0) {
            self.progress.skipped += 1;
            return Ok(());
        }
        self.scan(path, file, facts)?;
        if self.last_progress.elapsed() >= PROGRESS {
            self.last_progress = Instant::now();
            let progress = Reply::ScanProgress(self.progress);
            self.answer.reply(progress).map_err(|_| Gone)?;
        }
        if self.answer.gone() { Err(Gone) } else { Ok(()) }
    }

    fn scan(&mut self, path: &Path, file: OwnedFd, facts: Facts) -> Result<(), Gone> {
        if self
            .worker
            .as_ref()
            .is_none_or(|worker| worker.generation() != self.agent.factory.generation())
        {
            match self.agent.factory.spawn() {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => return self.failed(path, &crate::error_chain(&error)),
            }
        }
        let Some(worker) = &self.worker else { return Ok(()) };
        let limit = Duration::from_secs(self.agent.config.scan.rescan_limit_s);
        let scanned = match worker.scan(false, file.as_fd(), limit) {
            Ok(scanned) => scanned,
            Err(failed) => {
                let reason = match failed {
                    ScanFailed::Unreadable(errno) => {
                        std::io::Error::from_raw_os_error(errno).to_string()
                    }
                    ScanFailed::TimedOut => "the scan took too long".to_owned(),
                    ScanFailed::Died(_) => "the scan worker died of it".to_owned(),
                };
                if !matches!(failed, ScanFailed::Unreadable(_)) {
                    self.worker = None;
                }
                return self.failed(path, &reason);
            }
        };
        self.progress.files += 1;
        self.progress.bytes += scanned.read;
        let hashes = scanned.hashes.map(|hashes| hashes.to_hex()).unwrap_or_default();
        match scanned.verdict {
            Verdict::Clean => Ok(()),
            Verdict::Malicious(_) if self.agent.exclusions.allow_content(&hashes.sha256) => Ok(()),
            Verdict::Malicious(signature) => {
                let detection = self.respond.act(Judged {
                    file,
                    path: path.to_owned(),
                    facts,
                    signature,
                    hashes,
                    scan_type: ScanType::OnDemand,
                    decision: None,
                    quarantine: self.agent.config.on_access.mode == OnAccessMode::Block,
                    process: None,
                    parents: Vec::new(),
                });
                // Not for the prover's marker, which comes and goes while we look.
                let Some(detection) = detection else { return Ok(()) };
                self.progress.found += 1;
                self.answer.reply(Reply::ScanFound(Box::new(detection))).map_err(|_| Gone)
            }
        }
    }

    fn failed(&mut self, path: &Path, reason: &str) -> Result<(), Gone> {
        self.progress.failed += 1;
        let reply = Reply::ScanFailed { path: printable_path(path), reason: reason.to_owned() };
        self.answer.reply(reply).map_err(|_| Gone)
    }
}

fn kind_of(folder: &OwnedFd, name: &CStr) -> Option<FileType> {
    let stat =
        rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

fn printable_path(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}
