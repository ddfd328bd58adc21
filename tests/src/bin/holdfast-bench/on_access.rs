//! `on-access`: what protection costs, per open and for an untar and two greps.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_tests::agent::{Agent, Setup};
use holdfast_tests::scratch::Scratch;
use holdfast_tests::until;

use crate::clam::{self, Clam};
use crate::figures::{Figures, median};
use crate::listener::Listener;
use crate::workload::{self, Opens};

/// EICAR files that are dropped under protection.
const BAITS: usize = 100;

/// The folders on the scratch file system.
struct Ground {
    scratch: Scratch,
    set: Vec<PathBuf>,
    user_set: Vec<PathBuf>,
    tree: PathBuf,
    tar: PathBuf,
}

/// One way of protection (or none), measured once.
struct Turn {
    first: Opens,
    later: Opens,
    grep_first: f64,
    grep_second: f64,
    untar: f64,
}

/// One round of all of them.
struct Round {
    bare: Turn,
    listener: Turn,
    marks: Turn,
    holdfast: Turn,
    /// Later opens of files that others than root can write.
    user_later: Opens,
    past_deadline: f64,
    /// Opens held longest, microseconds.
    longest_held: f64,
}

/// Runs the bench.
///
/// # Errors
/// When something does not start, or a file system cannot be made.
pub fn run(rounds: usize) -> Result<Figures> {
    let ground = Ground::make()?;
    let mut all = Vec::new();
    for number in 1..=rounds {
        eprintln!("round {number} of {rounds}");
        all.push(round(&ground)?);
    }
    let mut figures = Figures::default();
    add_ratios(&mut figures, &all);
    add_opens(&mut figures, &all);
    add_peer(&mut figures, &all, &ground)?;
    let bad = lost_or_readable(&ground)?;
    figures.add("lost_or_readable", bad, "files lost or malicious files left readable", Some("0"));
    Ok(figures)
}

impl Ground {
    fn make() -> Result<Self> {
        let scratch = Scratch::ext4_sized(1 << 30)?;
        let set = workload::make_set(&scratch.join("set"), None)?;
        let user_set = workload::make_set(&scratch.join("user-set"), Some(1000))?;
        let (tree, tar) = (scratch.join("tree"), scratch.join("tree.tar"));
        workload::make_tree(&tree, &tar)?;
        // So that no write-back runs into what is measured, and no file is fresh any more.
        rustix::fs::sync();
        Ok(Self { scratch, set, user_set, tree, tar })
    }

    /// Two passes of opens, two greps, an untar.
    fn turn(&self) -> Result<Turn> {
        Ok(Turn {
            first: workload::open_each(&self.set)?,
            later: workload::open_each(&self.set)?,
            grep_first: workload::grep(&self.tree)?,
            grep_second: workload::grep(&self.tree)?,
            untar: workload::untar(&self.tar, &self.scratch.join("unpacked"))?,
        })
    }
}

fn round(ground: &Ground) -> Result<Round> {
    let path = ground.scratch.path();
    let bare = ground.turn()?;
    let listener = {
        let _running = Listener::start(path, false)?;
        ground.turn()?
    };
    let marks = {
        let _running = Listener::start(path, true)?;
        ground.turn()?
    };
    let mut agent = start_agent(path)?;
    let holdfast = ground.turn()?;
    workload::open_each(&ground.user_set)?;
    let user_later = workload::open_each(&ground.user_set)?;
    let counters = counters(&agent)?;
    agent.stop()?;
    Ok(Round {
        bare,
        listener,
        marks,
        holdfast,
        user_later,
        past_deadline: counters("past_deadline")?,
        longest_held: counters("longest_held_us")?,
    })
}

fn start_agent(path: &Path) -> Result<Agent> {
    Setup::protect([path]).tables("[sensor]\nenabled = false").start()
}

/// The numbers of `holdfast status`.
fn counters(agent: &Agent) -> Result<impl Fn(&str) -> Result<f64> + use<>> {
    let status = agent.json(&["status"])?;
    let status = status.first().context("a status")?.clone();
    Ok(move |name: &str| {
        status["on_access"][name].as_f64().with_context(|| format!("no counter {name}"))
    })
}

fn add_ratios(figures: &mut Figures, all: &[Round]) {
    let ratio = |of: &dyn Fn(&Round) -> f64| median(&all.iter().map(of).collect::<Vec<_>>());
    let later = ratio(&|round| round.holdfast.later.p50 / round.bare.later.p50);
    figures.add(
        "later_open",
        later,
        "later open of a clean file / unprotected, p50",
        Some("<= 1.3"),
    );
    let first = ratio(&|round| round.holdfast.first.p50 / round.listener.first.p50);
    figures.add("first_open", first, "first open of 4 KiB / smallest listener, p50", Some("<= 3"));
    // Where an idle processor is slow to wake, as in a virtual machine, the listener's figure
    // jumps between two values from round to round: this is against its best one.
    let best = all.iter().map(|round| round.listener.first.p50).fold(f64::INFINITY, f64::min);
    let first = ratio(&|round| round.holdfast.first.p50) / best;
    figures.add("first_open_best_listener", first, "the same / the listener's best round", None);
    let user = ratio(&|round| round.user_later.p50 / round.listener.later.p50);
    figures.add(
        "later_open_user_writable",
        user,
        "later open of a file that others than root can write / smallest listener, p50",
        None,
    );
    let grep = ratio(&|round| round.holdfast.grep_second / round.bare.grep_second);
    figures.add("grep_second", grep, "second grep / unprotected", Some("<= 1.2"));
    let grep = ratio(&|round| round.holdfast.grep_first / round.listener.grep_first);
    figures.add("grep_first", grep, "first grep / smallest listener", None);
    let untar = ratio(&|round| round.holdfast.untar / round.listener.untar);
    figures.add("untar", untar, "untar of 5,000 files / smallest listener", Some("<= 1.5"));
    let late: f64 = all.iter().map(|round| round.past_deadline).sum();
    figures.add("past_deadline", late, "opens that waited past the deadline", Some("0"));
    let longest = all.iter().map(|round| round.longest_held).fold(0.0, f64::max);
    figures.add("longest_held_us", longest, "longest time that an open was held, us", None);
}

fn add_opens(figures: &mut Figures, all: &[Round]) {
    let mut add = |name: &str, of: &dyn Fn(&Round) -> Opens| {
        let opens: Vec<Opens> = all.iter().map(of).collect();
        let p50 = median(&opens.iter().map(|opens| opens.p50).collect::<Vec<_>>());
        let p99 = median(&opens.iter().map(|opens| opens.p99).collect::<Vec<_>>());
        figures.add(&format!("open_us_{name}_p50"), p50, "open + close, us", None);
        figures.add(&format!("open_us_{name}_p99"), p99, "open + close, us", None);
    };
    add("unprotected", &|round| round.bare.later);
    add("listener", &|round| round.listener.first);
    add("listener_marks", &|round| round.marks.later);
    add("holdfast_first", &|round| round.holdfast.first);
    add("holdfast_later", &|round| round.holdfast.later);
    add("holdfast_user_later", &|round| round.user_later);
    let mut add = |name: &str, of: &dyn Fn(&Round) -> &Turn| {
        let mut figure = |what: &str, of_turn: &dyn Fn(&Turn) -> f64| {
            let seconds: Vec<f64> = all.iter().map(|round| of_turn(of(round))).collect();
            figures.add(&format!("{what}_s_{name}"), median(&seconds), "seconds", None);
        };
        figure("grep_first", &|turn| turn.grep_first);
        figure("grep_second", &|turn| turn.grep_second);
        figure("untar", &|turn| turn.untar);
    };
    add("unprotected", &|round| &round.bare);
    add("listener", &|round| &round.listener);
    add("listener_marks", &|round| &round.marks);
    add("holdfast", &|round| &round.holdfast);
}

/// ClamAV, once: it is slow enough for noise not to matter.
fn add_peer(figures: &mut Figures, all: &[Round], ground: &Ground) -> Result<()> {
    if let Some(missing) = clam::missing() {
        eprintln!("ClamAV is not compared with: no {missing} (packages clamav-daemon, clamdscan)");
        return Ok(());
    }
    let turn = {
        let _running = Clam::start(ground.scratch.path())?;
        ground.turn()?
    };
    let ours: Vec<f64> = all.iter().map(|round| round.holdfast.grep_first).collect();
    let ratio = turn.grep_first / median(&ours);
    figures.add("grep_first_peer", ratio, "first grep, ClamAV / Holdfast", Some(">= 20"));
    figures.add("open_us_clamav_p50", turn.first.p50, "open + close, us", None);
    figures.add("open_us_clamav_p99", turn.first.p99, "open + close, us", None);
    figures.add("grep_first_s_clamav", turn.grep_first, "seconds", None);
    figures.add("grep_second_s_clamav", turn.grep_second, "seconds", None);
    figures.add("untar_s_clamav", turn.untar, "seconds", None);
    Ok(())
}

/// Drops EICAR files under protection and opens each at once: how many could be read, or are
/// neither in place nor in quarantine in the end?
fn lost_or_readable(ground: &Ground) -> Result<f64> {
    let mut agent = start_agent(ground.scratch.path())?;
    let folder = ground.scratch.join("baits");
    fs::create_dir(&folder)?;
    let mut readable = 0;
    for index in 0..BAITS {
        let bait = folder.join(format!("bait-{index}"));
        fs::write(&bait, holdfast_tests::eicar())?;
        readable += usize::from(fs::read(&bait).is_ok_and(|bytes| !bytes.is_empty()));
    }
    let left = || fs::read_dir(&folder).map(Iterator::count).unwrap_or(BAITS);
    until(Duration::from_secs(30), || (left() == 0).then_some(()));
    let sealed = agent.json(&["quarantine", "list"])?.len();
    agent.stop()?;
    let lost = BAITS.saturating_sub(sealed + left());
    #[expect(clippy::cast_precision_loss, reason = "at most a few hundred")]
    let bad = (readable + lost) as f64;
    Ok(bad)
}
