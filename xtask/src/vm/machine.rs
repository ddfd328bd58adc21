//! One virtual machine: QEMU started, its serial line read to the end, the outcomes judged.
//!
//! Invariant: what was expected and has no outcome line has failed, whatever else happened. The
//! whole serial output is kept in a file; it is shown when anything failed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::kernels::Kernel;
use crate::shell;
use crate::test::outcome::{Ending, Outcome};

/// What the guest writes before each outcome: `HOLDFAST-OUTCOME name pass|fail|skip reason`.
const PREFIX: &str = "HOLDFAST-OUTCOME ";

/// The guest's last word: every scenario has had its turn.
const END: &str = "HOLDFAST-END";

/// The guest wants to be started again, with the same disk, once.
const REBOOT: &str = "HOLDFAST-REBOOT";

/// Longest time without a word from the guest. Emulation is slow, and other work may share the host.
const SILENCE: Duration = Duration::from_secs(180);

/// Longest time altogether.
const TOTAL: Duration = Duration::from_secs(900);

/// What a broken kernel says.
const BROKEN: &[&str] = &[
    "Kernel panic",
    "Oops:",
    "BUG: ",
    "general protection fault",
    "blocked for more than",
    "rcu_preempt detected stalls",
    "rcu_sched detected stalls",
    "self-detected stall",
];

/// What to start.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    /// Folder of this machine's files: initramfs, disk, log.
    pub(super) folder: PathBuf,
    /// Scenarios that the guest must report.
    pub(super) expected: BTreeSet<String>,
    /// Only scenarios whose name holds this.
    pub(super) filter: Option<&'a str>,
}

/// What the serial line said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Transcript {
    outcomes: BTreeMap<String, Ending>,
    /// The first line of a broken kernel.
    broken: Option<String>,
    /// Whether the guest got to its end.
    ended: bool,
    /// Whether it is to be started again.
    reboots: bool,
}

impl Transcript {
    /// Lines of the kernel and of programs come between the outcomes, never inside one.
    fn read(&mut self, line: &str) {
        if let Some((_, outcome)) = line.split_once(PREFIX) {
            let mut words = outcome.trim().splitn(3, ' ');
            let (name, result) =
                (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let reason = words.next().unwrap_or_default().to_owned();
            let result = match result {
                "pass" => Ending::Passed,
                "skip" => Ending::Skipped(reason),
                "fail" => Ending::Failed(reason),
                // A torn line says nothing: the outcome is missing.
                _ => return,
            };
            // A scenario that reports twice has the worse outcome.
            let slot = self.outcomes.entry(name.to_owned()).or_insert(Ending::Passed);
            if !matches!(slot, Ending::Failed(_)) {
                *slot = result;
            }
        } else if line.contains(END) {
            self.ended = true;
        } else if line.contains(REBOOT) {
            self.reboots = true;
        } else if self.broken.is_none() && BROKEN.iter().any(|sign| line.contains(sign)) {
            self.broken = Some(line.trim().to_owned());
        }
    }

    /// One outcome for each expected scenario, and one for the guest itself.
    fn judge(
        mut self,
        machine: &str,
        expected: &BTreeSet<String>,
        end: Option<String>,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for name in expected {
            let result = self
                .outcomes
                .remove(name)
                .unwrap_or_else(|| Ending::Failed("no outcome line from the guest".into()));
            outcomes.push(Outcome { name: format!("{machine}: {name}"), result });
        }
        for (name, _) in self.outcomes {
            let result = Ending::Failed("reported, but not in the guest's own list".into());
            outcomes.push(Outcome { name: format!("{machine}: {name}"), result });
        }
        let unfinished = (!self.ended).then(|| "ended before its power-off".to_owned());
        let reason = self.broken.or(end).or(unfinished);
        let result = reason.map_or(Ending::Passed, Ending::Failed);
        outcomes.push(Outcome { name: format!("{machine}: runs to its power-off"), result });
        outcomes
    }
}

impl Machine<'_> {
    /// Boot, wait for the power-off, judge.
    pub(super) fn run(&self, initramfs: &[u8]) -> anyhow::Result<Vec<Outcome>> {
        let started = Instant::now();
        fs::create_dir_all(&self.folder)?;
        fs::write(self.folder.join("initramfs"), initramfs)?;
        self.make_disk()?;
        let log = self.folder.join("serial.log");

        let mut transcript = Transcript::default();
        let mut end = self.boot(File::create(&log)?, &mut transcript)?;
        if transcript.reboots && end.is_none() {
            let log = File::options().append(true).open(&log)?;
            end = self.boot(log, &mut transcript)?;
        }
        // Rebuilt for each run, and large.
        for file in ["initramfs", "disk.img"] {
            fs::remove_file(self.folder.join(file))?;
        }

        let name = format!("vm {}", self.kernel.label);
        let outcomes = transcript.judge(&name, &self.expected, end);
        eprintln!(
            "{name}: Linux {}, {:.1} s",
            self.kernel.version,
            started.elapsed().as_secs_f64()
        );
        if outcomes.iter().any(Outcome::failed) {
            show(&log);
        }
        Ok(outcomes)
    }

    /// From power-on to the end of the serial line. Returns why it did not end by itself.
    fn boot(&self, log: File, transcript: &mut Transcript) -> anyhow::Result<Option<String>> {
        let mut child = self.start()?;
        let lines = serial_lines(&mut child, log)?;
        let end = follow(&lines, transcript);
        // A guest that powered off, or reboots, has ended QEMU; any other is ended here.
        let _ = child.kill();
        child.wait().context("wait for qemu")?;
        Ok(end)
    }

    /// An empty ext4 for the guest's /dev/vda.
    fn make_disk(&self) -> anyhow::Result<()> {
        let disk = self.folder.join("disk.img");
        File::create(&disk)?.set_len(512 << 20)?;
        shell::quiet(Command::new(shell::require("mkfs.ext4")?).args(["-q", "-F"]).arg(disk))
    }

    fn start(&self) -> anyhow::Result<Child> {
        let mut kernel_line =
            "console=ttyS0 panic=-1 loglevel=4 random.trust_cpu=on watchdog_thresh=60 \
             rcupdate.rcu_cpu_stall_timeout=120"
                .to_owned();
        if let Some(filter) = self.filter {
            kernel_line.push_str(&format!(" holdfast.filter={filter}"));
        }
        let at = |name: &str| self.folder.join(name);
        let mut qemu = Command::new(shell::require("qemu-system-x86_64")?);
        // QEMU 7.2 computes wrong flags for a cmpxchg16b without lock; an interrupt right behind one
        // (the slab allocator lives on them) then ends in a double fault. Kernels have another way.
        qemu.args(["-accel", "tcg,thread=multi", "-M", "pc", "-cpu", "max,-cx16", "-m", "1024"])
            .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(at("initramfs"))
            .args(["-append", &kernel_line, "-drive"])
            .arg(format!("file={},format=raw,if=virtio,cache=unsafe", at("disk.img").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        qemu.spawn().context("start qemu-system-x86_64")
    }
}

/// Lines as they come, each also written to the log; the channel closes when QEMU ends.
fn serial_lines(child: &mut Child, mut log: File) -> anyhow::Result<Receiver<String>> {
    let serial = child.stdout.take().context("qemu's output is a pipe")?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut serial = BufReader::new(serial);
        let mut line = Vec::new();
        while serial.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // The log is for people; the outcome counts even when the disk is full.
            let _ = log.write_all(&line);
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    Ok(lines)
}

/// Read to the end of the serial line. Returns why it did not end by itself.
fn follow(lines: &Receiver<String>, transcript: &mut Transcript) -> Option<String> {
    let end = Instant::now() + TOTAL;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Some(format!("still running after {} s", TOTAL.as_secs()));
        }
        match lines.recv_timeout(left.min(SILENCE)) {
            Ok(line) => {
                if line.contains(PREFIX) {
                    eprintln!("  {}", line.trim());
                }
                transcript.read(&line);
            }
            Err(RecvTimeoutError::Timeout) => {
                return Some(format!("silent for {} s: the guest hangs", SILENCE.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// The guest's own words, on our standard error.
fn show(log: &Path) {
    let text = fs::read(log).unwrap_or_default();
    eprintln!("---- {} ----", log.display());
    for line in String::from_utf8_lossy(&text).lines() {
        eprintln!("| {line}");
    }
    eprintln!("---- end ----");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(lines: &[&str], expected: &[&str]) -> Vec<Outcome> {
        let mut transcript = Transcript { ended: true, ..Transcript::default() };
        lines.iter().for_each(|line| transcript.read(line));
        let expected = expected.iter().map(|&name| name.to_owned()).collect();
        transcript.judge("vm", &expected, None)
    }

    #[test]
    fn a_missing_or_torn_outcome_is_a_failure() {
        let outcomes =
            judged(&["HOLDFAST-OUTCOME boots pas", "HOLDFAST-OUTCO"], &["boots", "loads"]);
        assert_eq!(outcomes.iter().filter(|o| o.failed()).count(), 2);
    }

    #[test]
    fn a_machine_that_stops_early_has_failed() {
        let mut transcript = Transcript::default();
        transcript.read("HOLDFAST-OUTCOME boots pass");
        let expected = BTreeSet::from(["boots".to_owned()]);
        assert!(transcript.judge("vm", &expected, None).iter().any(Outcome::failed));
    }

    #[test]
    fn a_panic_fails_the_run_though_every_scenario_passed() {
        let outcomes = judged(
            &["HOLDFAST-OUTCOME boots pass", "[ 1.0] Kernel panic - not syncing"],
            &["boots"],
        );
        assert_eq!(outcomes.iter().filter(|o| o.failed()).count(), 1);
    }

    #[test]
    fn an_outcome_behind_other_output_on_its_line_counts() {
        let outcomes =
            judged(&["noise HOLDFAST-OUTCOME boots skip kernel lacks it\r\n"], &["boots"]);
        assert_eq!(outcomes[0].result, Ending::Skipped("kernel lacks it".into()));
    }

    #[test]
    fn a_second_outcome_cannot_turn_a_failure_into_a_pass() {
        let outcomes = judged(
            &["HOLDFAST-OUTCOME a fail no", "HOLDFAST-OUTCOME a pass", "HOLDFAST-OUTCOME b pass"],
            &["a"],
        );
        assert!(outcomes[0].failed());
        assert!(outcomes[1].failed(), "b was not expected");
    }
}
