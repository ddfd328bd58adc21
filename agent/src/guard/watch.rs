//! The thread of the self-protection: loads, teaches, reads denials, looks for files and objects
//! that are new.
//!
//! Invariant: it is the only one that teaches, and nothing is taught but while its own open of
//! exactly that path lasts.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use holdfast_common::event::{EventBody, LossEvent, TamperingEvent};
use holdfast_common::guard::{ACTS, Act, CLASS_BITS, Class, Denial, Settings};
use holdfast_common::process::{ProcessInfo, ProcessKey, printable};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::programs::Programs;
use super::repeats::Repeats;
use super::subjects::{self, Subjects};
use super::tell::process_name;
use super::trial::{self, Told, Trial};
use super::{MODULES, Needs, Shared, Standing, State};
use crate::sensor::proc::{ProcDir, cut_to_tick, user_name};

/// Between two looks for what is new.
const LOOK: Duration = Duration::from_secs(5);
/// Between two trials, until one is denied.
const AGAIN: Duration = Duration::from_secs(60);
/// Ancestors that an event carries.
const PARENTS: usize = 16;
/// Denials read before the next look at anything else.
const BATCH: usize = 1024;
/// Batches among which the trial's own denials are looked for: more than the ring holds.
const BATCHES: usize = 4;

/// One kind of denial, for [`Repeats`].
type Kind = (ProcessKey, u32, [u32; 4], Vec<u8>);

/// What runs.
struct Watch<'a> {
    needs: &'a Needs,
    programs: Programs,
    subjects: Subjects,
    teacher: u64,
    agent: u32,
    objects: usize,
    lost: u64,
    repeats: Repeats<Kind, TamperingEvent>,
    /// The child that tries now, and what was told of it.
    trial: Option<(u32, Told)>,
    unproven: Option<String>,
}

/// The thread.
pub(super) fn run(shared: &Shared, needs: &Needs) {
    let mut watch = match Watch::begin(needs) {
        Ok(watch) => watch,
        Err(why) => {
            tracing::warn!(why, "self-protection: tampering is told, not denied");
            shared.set(State::Unavailable(why));
            return;
        }
    };
    let mut next = Instant::now();
    let mut next_trial = Some(Instant::now());
    while !shared.stopping() {
        if next_trial.is_some_and(|time| Instant::now() >= time) {
            watch.prove();
            next_trial = watch.unproven.is_some().then(|| Instant::now() + AGAIN);
        }
        let full = watch.drain();
        watch.sum_up();
        let now = Instant::now();
        if now >= next {
            watch.look();
            next = now + LOOK;
        }
        shared.set(State::Denies(Box::new(watch.standing())));
        if !full {
            watch.wait(shared, next.saturating_duration_since(Instant::now()));
        }
    }
    watch.drain();
    needs.seen.denied.store(false, Ordering::Release);
}

impl<'a> Watch<'a> {
    fn begin(needs: &'a Needs) -> Result<Self, String> {
        let modules = std::fs::read_to_string(MODULES);
        if modules.is_ok_and(|list| !list.trim().split(',').any(|name| name == "bpf")) {
            return Err(format!("{MODULES} lacks bpf"));
        }
        let own = std::env::current_exe().map_err(|error| format!("/proc/self/exe: {error}"))?;
        let agent = std::process::id();
        let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let mut watch = Self {
            needs,
            programs: Programs::load()?,
            subjects: Subjects::of(&needs.config, &needs.config_path, &own),
            teacher: u64::from(agent) << 32 | u64::from(thread),
            agent,
            objects: 0,
            lost: 0,
            repeats: Repeats::new(Instant::now()),
            trial: None,
            unproven: None,
        };
        watch.teach(Class::Agent, 0, Path::new("/"))?;
        if watch.programs.own().task == 0 {
            return Err(format!(
                "the programs load, but the kernel does not run them (see {MODULES}), or this \
                 process has another number outside its pid namespace"
            ));
        }
        for path in &needs.config.self_protection.package_managers {
            // Most hosts have one of them.
            if path.exists() {
                watch.teach(Class::Upgrader, 0, path)?;
            }
        }
        watch.look();
        Ok(watch)
    }

    /// Opens a path while the programs learn.
    fn teach(&mut self, class: Class, label: usize, path: &Path) -> Result<(), String> {
        let label = u32::try_from(label).map_err(|_| "too many paths".to_owned())?;
        let settings = Settings {
            teacher: self.teacher,
            agent: self.agent,
            lesson: label << CLASS_BITS | class as u32,
        };
        self.programs.set(settings)?;
        subjects::show(path);
        self.programs.set(Settings { lesson: 0, ..settings })
    }

    /// Files that came, went or were replaced; objects that were made.
    fn look(&mut self) {
        for label in 0..self.subjects.0.len() {
            let subject = self.subjects.0[label].clone();
            let now = subjects::identity(&subject.path);
            if now == subject.shown {
                continue;
            }
            if subject.shown.is_some() {
                self.programs.forget(|mark| (mark >> CLASS_BITS) as usize == label);
            }
            if now.is_some()
                && let Err(why) = self.teach(subject.class, label, &subject.path)
            {
                tracing::error!(why, path = %subject.path.display(), "self-protection");
                continue;
            }
            self.subjects.0[label].shown = now;
        }
        let objects = subjects::objects(&self.needs.config.isolation.pins);
        match self.programs.set_objects(&objects) {
            Ok(()) => self.objects = objects.len(),
            Err(why) => tracing::error!(why, "self-protection: eBPF objects"),
        }
    }

    fn standing(&self) -> Standing {
        let (files, upgraders) = self.programs.known();
        Standing {
            hooks: self.programs.hooks.clone(),
            files,
            shown: self.subjects.0.iter().filter(|subject| subject.shown.is_some()).count(),
            upgraders,
            objects: self.objects,
            counted: self.programs.total(),
            unproven: self.unproven.clone(),
        }
    }

    /// Has a child try what must be denied, and notes what is wrong. Until nothing is, tampering
    /// is told as the sensor sees it.
    fn prove(&mut self) {
        self.unproven = self.attempt();
        if let Some(why) = &self.unproven {
            tracing::error!(why, "self-protection: a trial was not denied");
        }
        self.needs.seen.denied.store(self.unproven.is_none(), Ordering::Release);
    }

    fn attempt(&mut self) -> Option<String> {
        let exempt = self.programs.total().exempt;
        // Always there, and nobody but the agent has to do with it.
        let file = self.needs.config.state_dir.join("version");
        let mut trial = match Trial::start(&file) {
            Ok(trial) => trial,
            Err(error) => return Some(format!("its process does not start: {error}")),
        };
        self.trial = Some((trial.pid(), Told::default()));
        let answers = trial.answers();
        // The records came before the answer.
        for _ in 0..BATCHES {
            if !self.drain() {
                break;
            }
        }
        let told = self.trial.take().map(|(_, told)| told).unwrap_or_default();
        let fault = match answers {
            Ok(answers) => trial::fault(answers, told)?,
            Err(why) => why,
        };
        let exempt = self.programs.total().exempt > exempt;
        let because = if exempt { " (does the agent run below a package manager?)" } else { "" };
        Some(format!("{fault}{because}"))
    }

    /// Reads what was denied; true when there may be more.
    fn drain(&mut self) -> bool {
        for _ in 0..BATCH {
            let Some(item) = self.programs.denials.next() else { return false };
            let denial = Denial::read(&item);
            drop(item);
            match denial {
                Some(denial) => self.tell(&denial),
                None => tracing::error!("a denial's record has another length"),
            }
        }
        true
    }

    fn tell(&mut self, denial: &Denial) {
        let Some(act) = ACTS.get(denial.act as usize).copied() else {
            tracing::error!(act = denial.act, "an unknown denial");
            return;
        };
        if let Some((pid, told)) = &mut self.trial
            && *pid == denial.pid
        {
            told.signal |= act == Act::Signal;
            told.write |= act == Act::Write;
            return;
        }
        let key = ProcessKey { pid: denial.pid, start_ns: cut_to_tick(denial.start_ns) };
        let name = text(&denial.name);
        let kind: Kind = (
            key,
            denial.act,
            [denial.detail, denial.target, denial.mark, denial.depth],
            name.clone().into_bytes(),
        );
        let process = (denial.pid != 0).then(|| self.process(key, denial));
        let event = TamperingEvent {
            process,
            parents: Vec::new(),
            action: act.name().to_owned(),
            target: self.target(act, denial, &name),
            denied: true,
            count: 1,
        };
        if !self.repeats.is_first(kind, || event.clone()) {
            return;
        }
        let parents = event.process.as_ref();
        let parents = parents.map(|process| self.needs.table.ancestors(process, PARENTS));
        tracing::warn!(action = event.action, target = event.target, pid = denial.pid, "denied");
        let event = TamperingEvent { parents: parents.unwrap_or_default(), ..event };
        (self.needs.report)(EventBody::Tampering(Box::new(event)));
    }

    fn target(&self, act: Act, denial: &Denial, name: &str) -> String {
        let process = || process_name(denial.target, self.agent);
        match act {
            Act::Signal | Act::DescriptorSignal => {
                format!("{}, signal {}", process(), denial.detail)
            }
            Act::Ptrace | Act::Scheduling => process(),
            Act::Limits => format!("{}, limit {}", process(), denial.detail),
            Act::ProcessFile => format!("{}, {name}", process()),
            Act::Cgroup if denial.depth == 0 => format!("the agent's cgroup, {name}"),
            Act::Cgroup => format!("a cgroup above the agent's, {name}"),
            Act::Write | Act::Create | Act::Unlink | Act::Rename | Act::Link | Act::Attributes => {
                self.subjects.name(denial.mark, denial.depth, name)
            }
            Act::Unmount => "the BPF file system that holds the pins".to_owned(),
            Act::Bpf => format!("eBPF object {}, command {}", denial.target, denial.detail),
        }
    }

    /// Who did it: as the table has it, else as /proc does, else what the record says.
    fn process(&self, key: ProcessKey, denial: &Denial) -> ProcessInfo {
        let known = self.needs.table.get(key);
        let known = known.or_else(|| ProcDir::open_key(key).map(|folder| folder.facts()));
        ProcessInfo {
            key,
            uid: denial.uid,
            euid: denial.euid,
            user: user_name(denial.uid),
            comm: text(&denial.comm),
            ..known.unwrap_or_default()
        }
    }

    /// Tells how many more there were, and what was lost.
    fn sum_up(&mut self) {
        let Some(summary) = self.repeats.take(Instant::now()) else { return };
        for (event, count) in summary.repeated {
            let event = TamperingEvent { count, ..event };
            (self.needs.report)(EventBody::Tampering(Box::new(event)));
        }
        let lost = self.programs.total().lost;
        let count = summary.over + lost.saturating_sub(self.lost);
        self.lost = lost;
        if count > 0 {
            let queue = "denials by the self-protection".to_owned();
            (self.needs.report)(EventBody::Loss(LossEvent { queue, count }));
        }
    }

    fn wait(&self, shared: &Shared, most: Duration) {
        let ring = self.programs.denials.as_fd();
        let mut waiting = vec![PollFd::from_borrowed_fd(ring, PollFlags::IN)];
        if let Some(wake) = &shared.wake {
            waiting.push(PollFd::new(wake, PollFlags::IN));
        }
        let most = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        // An interrupted wait is a short one.
        let _ = poll(&mut waiting, Some(&most));
    }
}

/// Up to the NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    printable(&bytes[..end])
}
