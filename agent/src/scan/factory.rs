//! Keeps the current rules and starts workers with them.
//!
//! INVARIANT: rules are current only after one worker has loaded them; a refused or unreadable
//! bundle changes nothing but [`BundleState::refused`], at the start too where rules of the same
//! folder were good before ([`super::last_good`]). Which worker does what is not known here.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use holdfast_common::control::BundleState;
use holdfast_common::process::printable;
use holdfast_common::wire::Answer;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::bundle::{BundleError, BundleSource};
use super::keeper::{Keeper, Start};
use super::last_good::LastGood;
use super::link::{Link, WorkerDied};
use super::process::Worker;
use crate::config;
use crate::worker::{Limits, cage};

/// A worker that has not loaded its rules by then is killed.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Times that a first worker is tried: a host that boots is slow, and short of memory at times.
const FIRST_TRIES: usize = 3;

/// The user that workers become when the host has it.
const USER: &str = "holdfast-scan";
/// Otherwise a number that nobody uses. Not `nobody`: whoever else runs as that could stop and
/// kill the workers. It lies beyond the ranges that containers and systemd hand out.
const UNUSED: u32 = 2_147_401_003;

/// Starts workers. Usable from any thread.
#[derive(Debug)]
pub struct WorkerFactory {
    folder: Option<PathBuf>,
    last_good: Option<LastGood>,
    binary: PathBuf,
    limits: Limits,
    keeper: Keeper,
    current: Mutex<Current>,
    /// A hash list besides the folder: content that responses denied.
    denied: Mutex<String>,
    /// One reload at a time.
    reload: Mutex<()>,
    starting: AtomicUsize,
}

#[derive(Debug)]
struct Current {
    source: Arc<BundleSource>,
    state: BundleState,
    generation: u64,
    missing: u8,
}

/// Why there is no worker, or no new bundle.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The rules folder is not taken.
    #[error("rule bundle refused")]
    Bundle(#[from] BundleError),
    /// A worker read the rules and refused them; file and line.
    #[error("rule bundle refused: {0}")]
    Rules(String),
    /// The program could not be started.
    #[error("cannot start scan worker {binary}")]
    Start {
        /// The program.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer of the cage could not be built, so the worker refused to work.
    #[error("scan worker has no {0}")]
    Cage(String),
    /// The worker died before it had loaded the rules.
    #[error("scan worker died while it loaded the rules")]
    Died(#[from] WorkerDied),
    /// It did not answer in time.
    #[error("scan worker did not load the rules within {} s", START_LIMIT.as_secs())]
    Silent,
}

/// `holdfast-scan` beside the running program.
///
/// # Errors
/// `/proc/self/exe` cannot be read.
pub fn default_binary() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("holdfast-scan"))
}

/// What the first worker of a bundle told.
struct Loaded {
    hashes: u64,
    yara_rules: u64,
    missing: u8,
}

impl WorkerFactory {
    /// Reads the bundle and proves it by loading it in one worker.
    ///
    /// # Errors
    /// [`ScanError`]; without a good bundle there is no factory.
    pub fn new(config: &config::Scan, binary: PathBuf) -> Result<Self, ScanError> {
        Self::start_with(config, binary, None, String::new())
    }

    /// As [`WorkerFactory::new`], keeping each good bundle in the state folder. Where the bundle
    /// is bad now, the one that was good last is used, and [`bundle`](Self::bundle) says why.
    /// `denied` is one more hash list (`*.sha256`).
    ///
    /// # Errors
    /// [`ScanError`], when there is no such bundle either.
    pub fn keeping(
        config: &config::Scan,
        binary: PathBuf,
        state: &Path,
        denied: String,
    ) -> Result<Self, ScanError> {
        let last_good = config.bundle.as_deref().map(|folder| LastGood::new(state, folder));
        Self::start_with(config, binary, last_good, denied)
    }

    fn start_with(
        config: &config::Scan,
        binary: PathBuf,
        last_good: Option<LastGood>,
        denied: String,
    ) -> Result<Self, ScanError> {
        let (uid, gid) = worker_user(Path::new("/etc/passwd"));
        let limits =
            Limits { memory: config.memory_limit.0, seconds: config.rescan_limit_s, uid, gid };
        let keeper =
            Keeper::new().map_err(|source| ScanError::Start { binary: binary.clone(), source })?;
        let factory = Self {
            folder: config.bundle.clone(),
            last_good,
            binary,
            limits,
            keeper,
            current: Mutex::new(Current {
                source: Arc::new(BundleSource::read_with(None, 0, "")?),
                state: BundleState::default(),
                generation: 0,
                missing: 0,
            }),
            denied: Mutex::new(denied.clone()),
            reload: Mutex::new(()),
            starting: AtomicUsize::new(0),
        };
        let proven = read_bundle(config.bundle.as_deref(), limits, &denied)
            .map_err(ScanError::from)
            .and_then(|source| factory.prove_patiently(&Arc::new(source)));
        if let Err(error) = proven {
            factory.fall_back(error)?;
        }
        Ok(factory)
    }

    /// Makes the rules that were good last the current ones, where newer rules are the reason
    /// that there are none. The error comes back where that does not help.
    fn fall_back(&self, error: ScanError) -> Result<(), ScanError> {
        let rules = match error {
            ScanError::Bundle(_) | ScanError::Rules(_) | ScanError::Died(_) | ScanError::Silent => {
                true
            }
            ScanError::Start { .. } | ScanError::Cage(_) => false,
        };
        let last = self.last_good.as_ref().filter(|_| rules);
        let Some(source) = last.and_then(|last| last.read(self.limits.memory / 4)) else {
            return Err(error);
        };
        if self.prove_patiently(&Arc::new(source)).is_err() {
            return Err(error);
        }
        self.current().state.refused = Some(printable(chain(&error).as_bytes()));
        Ok(())
    }

    fn prove_patiently(&self, source: &Arc<BundleSource>) -> Result<BundleState, ScanError> {
        patiently(|| self.prove(Arc::clone(source)))
    }

    /// [`WorkerFactory::spawn`] for the first workers of all: tried again where that can help.
    ///
    /// # Errors
    /// [`ScanError`]
    pub fn spawn_patiently(&self) -> Result<Worker, ScanError> {
        patiently(|| self.spawn())
    }

    /// Starts a caged worker with the current bundle loaded. Blocks, at most 20 s.
    ///
    /// # Errors
    /// [`ScanError`]
    pub fn spawn(&self) -> Result<Worker, ScanError> {
        let (source, generation) = {
            let current = self.current();
            (Arc::clone(&current.source), current.generation)
        };
        self.start(&source, generation).map(|(worker, _)| worker)
    }

    /// Takes another list of denied content, for the next [`WorkerFactory::reload`]. False when it
    /// is the one that it has.
    pub fn set_denied(&self, list: String) -> bool {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = *denied != list;
        *denied = list;
        differs
    }

    /// Reads the folder again. Whole or not at all: on an error the last good bundle stays in
    /// use, and [`bundle`](Self::bundle) says why. Workers that run keep their old rules: see
    /// [`Worker::generation`].
    ///
    /// # Errors
    /// [`ScanError`]
    pub fn reload(&self) -> Result<BundleState, ScanError> {
        let _one = self.reload.lock().unwrap_or_else(PoisonError::into_inner);
        let denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let proven = read_bundle(self.folder.as_deref(), self.limits, &denied)
            .map_err(ScanError::from)
            .and_then(|source| self.prove(Arc::new(source)));
        if let Err(error) = &proven {
            self.current().state.refused = Some(printable(chain(error).as_bytes()));
        }
        proven
    }

    /// The bundle in use.
    pub fn bundle(&self) -> BundleState {
        self.current().state.clone()
    }

    /// The rules in use, with their text.
    pub fn rules(&self) -> (BundleState, Arc<BundleSource>) {
        let current = self.current();
        (current.state.clone(), Arc::clone(&current.source))
    }

    /// Grows with each successful reload.
    pub fn generation(&self) -> u64 {
        self.current().generation
    }

    /// Layers of the cage that this host's kernel lacks, in words; usually none.
    pub fn missing_layers(&self) -> Vec<&'static str> {
        let missing = self.current().missing;
        [(cage::MISSING_LANDLOCK, "landlock"), (cage::MISSING_USER_NAMESPACE, "user namespace")]
            .into_iter()
            .filter_map(|(bit, name)| (missing & bit != 0).then_some(name))
            .collect()
    }

    /// True while a child of ours may be loading its program and libraries (it is opening files
    /// then, and no [`Worker`] names its pid yet). Once caged, a worker opens nothing.
    pub fn starting(&self) -> bool {
        self.starting.load(Ordering::Acquire) > 0
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a bundle the current one when a worker loads it.
    fn prove(&self, source: Arc<BundleSource>) -> Result<BundleState, ScanError> {
        let (_, loaded) = self.start(&source, 0)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let path =
            self.folder.as_deref().map_or(&b""[..], |folder| folder.as_os_str().as_encoded_bytes());
        let state = BundleState {
            path: printable(path),
            digest: source.digest().to_owned(),
            loaded_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            hashes: loaded.hashes,
            yara_rules: loaded.yara_rules,
            refused: None,
        };
        if let Some(Err(error)) = self.last_good.as_ref().map(|last| last.keep(&source)) {
            tracing::warn!(%error, "the rule bundle is not kept for the next start");
        }
        let mut current = self.current();
        current.source = source;
        current.state = state.clone();
        current.generation += 1;
        current.missing = loaded.missing;
        Ok(state)
    }

    fn start(&self, source: &BundleSource, generation: u64) -> Result<(Worker, Loaded), ScanError> {
        let _starting = Starting::new(&self.starting);
        let failed = |source: io::Error| ScanError::Start { binary: self.binary.clone(), source };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| failed(error.into()))?;
        let start =
            Start { program: self.binary.clone(), args: self.limits.to_args(), socket: theirs };
        let started = self.keeper.start(start, START_LIMIT).map_err(failed)?;
        let worker = Worker::new(Link::new(ours), started, self.keeper.clone(), generation);
        worker.link.load(source.image())?;
        match worker.link.wait_answer(Instant::now() + START_LIMIT)?.ok_or(ScanError::Silent)? {
            Answer::Loaded { hashes, yara_rules, missing } => {
                Ok((worker, Loaded { hashes, yara_rules, missing }))
            }
            Answer::Refused(reason) => Err(match reason.strip_prefix(cage::REFUSAL) {
                Some(layer) => ScanError::Cage(layer.to_owned()),
                None => ScanError::Rules(reason),
            }),
            Answer::Scanned { .. } => Err(WorkerDied::Unasked.into()),
        }
    }
}

/// Again where the host may have been the reason.
fn patiently<T>(mut start: impl FnMut() -> Result<T, ScanError>) -> Result<T, ScanError> {
    let mut left = FIRST_TRIES;
    loop {
        left -= 1;
        match start() {
            Err(error @ (ScanError::Start { .. } | ScanError::Died(_) | ScanError::Silent))
                if left > 0 =>
            {
                tracing::warn!(error = chain(&error), "no first scan worker; trying again");
            }
            done => return done,
        }
    }
}

struct Starting<'a>(&'a AtomicUsize);

impl<'a> Starting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A quarter of a worker's memory for the text of the rules; the rest for what is made of it.
fn read_bundle(
    folder: Option<&Path>,
    limits: Limits,
    denied: &str,
) -> Result<BundleSource, BundleError> {
    BundleSource::read_with(folder, limits.memory / 4, denied)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// From the file itself: name services talk to sockets and may wait for a network.
fn worker_user(passwd: &Path) -> (u32, u32) {
    let unused = (UNUSED, UNUSED);
    let Ok(text) = std::fs::read_to_string(passwd) else { return unused };
    text.lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == USER).then_some(())?;
            let uid: u32 = fields.nth(1)?.parse().ok()?;
            let gid: u32 = fields.next()?.parse().ok()?;
            (uid != 0 && gid != 0).then_some((uid, gid))
        })
        .unwrap_or(unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_user_is_never_root() {
        let passwd = tempfile::NamedTempFile::new().expect("file");
        for (text, expected) in [
            ("root:x:0:0::/:/bin/sh\nholdfast-scan:x:990:991::/:/bin/false\n", (990, 991)),
            ("holdfast-scan:x:0:0::/:/bin/false\n", (UNUSED, UNUSED)),
            ("holdfast-scan2:x:5:5::/:\nholdfast-scan:x\n", (UNUSED, UNUSED)),
            ("", (UNUSED, UNUSED)),
        ] {
            std::fs::write(passwd.path(), text).expect("write");
            assert_eq!(worker_user(passwd.path()), expected, "{text}");
        }
        assert_eq!(worker_user(Path::new("/nonexistent")), (UNUSED, UNUSED));
    }
}
