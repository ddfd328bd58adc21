//! `sensor`: what watching costs, what of it is lost, and how soon it is told.
//!
//! The agents here protect a scratch file system of their own; what is started and captured lies
//! outside of it, so that the sensor alone is measured.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use holdfast_tests::agent::{Agent, Setup, binary};
use holdfast_tests::scratch::Scratch;
use holdfast_tests::until;
use serde_json::Value;

use crate::figures::{Figures, median, percentile};
use crate::isolation;
use crate::sigma::sigma_rate;

/// Programs started in one turn of the storm, on each processor.
const STORM: usize = 1500;
/// Programs started for the account, on all processors together.
const LONG_STORM: usize = 100_000;
/// Captures timed.
const SNIFFERS: usize = 50;
/// How long the idle agent is watched.
const IDLE: Duration = Duration::from_secs(60);
/// For the account to settle, and for a detection to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `--only` takes, in their order.
pub const PARTS: &[&str] = &["idle", "storm", "account", "sniff", "isolation", "sigma"];

/// Runs the bench, or one part of it.
///
/// # Errors
/// When something does not start or does not come.
pub fn run(rounds: usize, only: Option<&str>) -> Result<Figures> {
    let mut figures = Figures::default();
    let scratch = Scratch::tmpfs(64 << 20)?;
    for part in PARTS.iter().filter(|part| only.is_none_or(|only| only == **part)) {
        match *part {
            "idle" => {
                eprintln!("idle for {} s", IDLE.as_secs());
                idle(&scratch, &mut figures)?;
            }
            "storm" => {
                eprintln!("storms, {rounds} rounds");
                storm(&scratch, rounds, &mut figures)?;
            }
            "account" => {
                eprintln!("{LONG_STORM} starts, accounted");
                account(&scratch, &mut figures)?;
            }
            "sniff" => {
                eprintln!("{SNIFFERS} captures");
                sniff(&scratch, &mut figures)?;
            }
            "isolation" => {
                eprintln!("isolation, 20 rounds");
                isolation::measure_into(&mut figures)?;
            }
            _ => {
                eprintln!("Sigma rules, {rounds} rounds");
                sigma(rounds, &mut figures)?;
            }
        }
    }
    Ok(figures)
}

fn agent(scratch: &Scratch, tables: &str) -> Result<Agent> {
    Setup::protect([scratch.path()]).tables(tables).start()
}

/// Processor time and memory of an agent that has nothing to do, its self-proof included.
fn idle(scratch: &Scratch, figures: &mut Figures) -> Result<()> {
    // One whole round falls into the minute, five times as often as by default.
    let mut agent = agent(scratch, "[self_proof]\nenabled = true\ninterval_s = 60")?;
    // Idle is what comes after the start, whose end the first proof is.
    until(PATIENCE, || {
        let status = agent.json(&["status"]).ok()?;
        status[0]["proof"]["lines"].as_array().filter(|lines| !lines.is_empty()).map(drop)
    })
    .context("no first proof")?;
    let family = family(agent.pid());
    let before = ticks(&family);
    let begin = Instant::now();
    std::thread::sleep(IDLE);
    let used = ticks(&family) - before;
    let seconds = begin.elapsed().as_secs_f64();
    figures.add(
        "idle_cpu_percent",
        used / seconds,
        "agent and workers idle for a minute, % of one core",
        Some("<= 0.5"),
    );
    let memory =
        |field: &str| family.iter().map(|pid| kibibytes(*pid, field)).sum::<f64>() / 1024.0;
    figures.add(
        "idle_rss_mib",
        memory("Rss:"),
        "all its processes, shared pages counted in each, MiB",
        Some("<= 60"),
    );
    figures.add("idle_pss_mib", memory("Pss:"), "the same, shared pages counted once", None);
    let lost: u64 = sensor(&agent)?.iter().map(|state| number(state, "lost")).sum();
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    figures.add("idle_lost", lost as f64, "records lost on an idle host", Some("0"));
    agent.stop()?;
    Ok(())
}

/// Rounds in turns: sensor off, sensor on.
fn storm(scratch: &Scratch, rounds: usize, figures: &mut Figures) -> Result<()> {
    let mut ratios = Vec::new();
    let mut each = Vec::new();
    for round in 0..rounds {
        let mut seconds = [0.0; 2];
        // Which comes first alternates, so that neither has the warmer machine.
        for turn in [round % 2, 1 - round % 2] {
            let mut agent = agent(scratch, &format!("[sensor]\nenabled = {}", turn == 1))?;
            start_programs(STORM / 10)?;
            let begin = Instant::now();
            start_programs(STORM)?;
            seconds[turn] = begin.elapsed().as_secs_f64();
            agent.stop()?;
        }
        ratios.push(seconds[1] / seconds[0]);
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        each.push(seconds[0] * 1e6 / STORM as f64);
    }
    figures.add(
        "exec_storm",
        median(&ratios),
        "fork and exec on all processors, sensor on / off",
        Some("<= 1.10"),
    );
    figures.add("exec_us", median(&each), "one fork and exec without it, us, each processor", None);
    Ok(())
}

/// One core, no agent.
fn sigma(rounds: usize, figures: &mut Figures) -> Result<()> {
    let rates = (0..rounds).map(|_| sigma_rate()).collect::<Result<Vec<_>>>()?;
    let what = "events a second past all SigmaHQ rules that can fire, one core";
    figures.add("sigma_rate", median(&rates), what, Some(">= 200000"));
    Ok(())
}

/// What each kind of record became of, in a storm that nobody could follow one by one.
fn account(scratch: &Scratch, figures: &mut Figures) -> Result<()> {
    let mut agent = agent(scratch, "")?;
    let starts = LONG_STORM / processors();
    start_programs(starts)?;
    let settled = until(PATIENCE, || {
        let now = sensor(&agent).ok()?;
        (unaccounted(&now) == 0).then_some(now)
    });
    let states = match settled {
        Some(states) => states,
        None => sensor(&agent)?,
    };
    let exec = states.iter().find(|state| state["name"] == "exec").context("exec")?;
    let generated = number(exec, "generated");
    ensure!(generated >= (starts * processors()) as u64, "only {generated} starts were generated");
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    {
        figures.add(
            "unaccounted",
            unaccounted(&states) as f64,
            "generated - delivered - aggregated - lost, 100,000 starts",
            Some("0"),
        );
        for (name, field) in [
            ("storm_aggregated", "aggregated"),
            ("storm_lost", "lost"),
            ("storm_told", "delivered"),
        ] {
            figures.add(name, number(exec, field) as f64, &format!("of {generated} starts"), None);
        }
    }
    agent.stop()?;
    Ok(())
}

/// From the start of `tcpdump` to its detection in the journal, as a follower of it sees it.
fn sniff(scratch: &Scratch, figures: &mut Figures) -> Result<()> {
    let mut agent = agent(scratch, "")?;
    let mut follower = Command::new(binary("holdfast"))
        .arg("--socket")
        .arg(agent.socket())
        .args(["--json", "events", "--follow", "--kind", "model"])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(follower.stdout.take().context("a pipe")?).lines();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if tell.send((Instant::now(), line)).is_err() {
                break;
            }
        }
    });
    let timed = (0..SNIFFERS).map(|_| one_capture(&told)).collect::<Result<Vec<_>>>();
    follower.kill()?;
    follower.wait()?;
    let timed = timed.with_context(|| agent.log())?;
    figures.add(
        "sniff_latency_ms",
        percentile(&timed, 0.95),
        "tcpdump's exec to its detection in the journal, p95 of 50",
        Some("<= 100"),
    );
    figures.add("sniff_latency_p50_ms", median(&timed), "the same, p50", None);
    agent.stop()?;
    Ok(())
}

fn one_capture(told: &mpsc::Receiver<(Instant, String)>) -> Result<f64> {
    let begin = Instant::now();
    let mut sniffer = Running(
        Command::new("tcpdump")
            .args(["-i", "lo", "-nn", "-c", "1", "port", "9"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("tcpdump")?,
    );
    let pid = sniffer.0.id();
    let end = begin + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let (at, line) = told.recv_timeout(left).context("no detection came")?;
        let event: Value = serde_json::from_str(&line)?;
        if event["title"] == "Network Sniffing" && event["process"]["key"]["pid"] == pid {
            sniffer.0.kill()?;
            return Ok(at.duration_since(begin).as_secs_f64() * 1000.0);
        }
    }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `each` programs on every processor at once, each waited for.
fn start_programs(each: usize) -> Result<()> {
    let threads: Vec<_> = (0..processors())
        .map(|_| {
            std::thread::spawn(move || -> Result<()> {
                for _ in 0..each {
                    ensure!(Command::new("/bin/true").status()?.success(), "/bin/true");
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        match thread.join() {
            Ok(done) => done?,
            Err(_) => bail!("a storm thread panicked"),
        }
    }
    Ok(())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// The sensor's states in `holdfast status`.
fn sensor(agent: &Agent) -> Result<Vec<Value>> {
    let output = agent.cli(&["--json", "status"])?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    status["sensor"].as_array().cloned().context("no sensor in the status")
}

fn number(state: &Value, field: &str) -> u64 {
    state[field].as_u64().unwrap_or(0)
}

fn unaccounted(states: &[Value]) -> u64 {
    let of = |state: &Value| {
        let known =
            number(state, "delivered") + number(state, "aggregated") + number(state, "lost");
        number(state, "generated").abs_diff(known)
    };
    states.iter().map(of).sum()
}

/// A process and all its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        for entry in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(entry.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    family
}

/// Processor time in hundredths of a second, waited-for children included: `USER_HZ` ticks.
fn ticks(pids: &[u32]) -> f64 {
    let of = |pid: &u32| -> f64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
        let fields: Vec<f64> = rest.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        // utime, stime, cutime, cstime (proc_pid_stat(5)); the state is field 3.
        fields.get(11..15).map_or(0.0, |times| times.iter().sum())
    };
    pids.iter().map(of).sum()
}

fn kibibytes(pid: u32, field: &str) -> f64 {
    let path = Path::new("/proc").join(pid.to_string()).join("smaps_rollup");
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
