//! Processes and what belongs to them: `ps kill env users mounts`.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use holdfast_common::process::ProcessKey;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::out::Out;
use super::{Done, none, one};
use crate::sensor::proc::{ProcDir, read_file, user_name};
use crate::sensor::table::pids;

/// Bytes of a file of /proc or /etc.
const LARGEST: u64 = 4 << 20;

pub(super) fn ps(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    let wanted = match words {
        [] => None,
        [word] => Some(String::from_utf8_lossy(word).into_owned()),
        _ => return Err("usage: ps [TEXT]".to_owned()),
    };
    out.line(&format!("{:>7} {:>7} {:<10} {:<5} COMMAND", "PID", "PPID", "USER", "STATE"));
    for pid in pids() {
        let Some(line) = ps_line(pid) else { continue };
        if wanted.as_ref().is_none_or(|wanted| line.contains(wanted)) && !out.line(&line) {
            break;
        }
    }
    Ok(())
}

fn ps_line(pid: u32) -> Option<String> {
    let folder = ProcDir::open(pid)?;
    let facts = folder.facts();
    let (arguments, _) = folder.arguments();
    let stat = read_file(format!("/proc/{pid}/stat").as_ref(), LARGEST)?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let state = char::from(*stat.get(close + 2)?);
    let command =
        if arguments.is_empty() { format!("[{}]", facts.comm) } else { arguments.join(" ") };
    let user = folder.users().map_or_else(String::new, |(real, _)| user_name(real));
    Some(format!("{pid:>7} {:>7} {user:<10} {state:<5} {command}", folder.parent))
}

pub(super) fn kill(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    const USAGE: &str = "usage: kill [-HUP|-INT|-KILL|-TERM|-STOP|-CONT] PID";
    let (signal, name, word) = match words {
        [word] => (Signal::TERM, "TERM", word),
        [signal, word] => {
            let (signal, name) = match signal.as_slice() {
                b"-HUP" | b"-1" => (Signal::HUP, "HUP"),
                b"-INT" | b"-2" => (Signal::INT, "INT"),
                b"-KILL" | b"-9" => (Signal::KILL, "KILL"),
                b"-TERM" | b"-15" => (Signal::TERM, "TERM"),
                b"-STOP" | b"-19" => (Signal::STOP, "STOP"),
                b"-CONT" | b"-18" => (Signal::CONT, "CONT"),
                _ => return Err(USAGE.to_owned()),
            };
            (signal, name, word)
        }
        _ => return Err(USAGE.to_owned()),
    };
    let pid = pid(word).ok_or(USAGE)?;
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(USAGE)?;
    // Opened first: whoever is looked at below is whom the signal goes to.
    let process =
        pidfd_open(number, PidfdFlags::empty()).map_err(|error| format!("{pid}: {error}"))?;
    let folder = ProcDir::open(pid).ok_or_else(|| format!("{pid}: no such process"))?;
    let line = ps_line(pid).ok_or_else(|| format!("{pid}: no such process"))?;
    if let Some(why) = spared(&folder) {
        return Err(format!("{pid} is {why}: it is not killed from here"));
    }
    out.line(&line);
    pidfd_send_signal(&process, signal).map_err(|error| format!("{pid}: {error}"))?;
    out.line(&format!("SIG{name} was sent"));
    Ok(())
}

/// Process 1, the kernel's own, this shell, and the agent with all that it started.
fn spared(folder: &ProcDir) -> Option<&'static str> {
    let own = std::process::id();
    let agent =
        rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    let ProcessKey { pid, .. } = folder.key;
    match pid {
        1 => Some("the first process"),
        2 => Some("the kernel's"),
        pid if pid == own => Some("this shell"),
        pid if pid == agent => Some("the agent"),
        _ if folder.parent == 2 => Some("the kernel's"),
        _ if folder.parent == agent && agent > 1 => Some("the agent's"),
        _ => None,
    }
}

fn pid(word: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(word).ok()?;
    // A sign would make it something else.
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?
}

pub(super) fn env(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    if words.is_empty() {
        for (name, value) in std::env::vars_os() {
            out.bytes(&[name.as_bytes(), b"=", value.as_bytes()].concat());
        }
        return Ok(());
    }
    let pid = pid(one(words, "env [PID]")?).ok_or("usage: env [PID]")?;
    let environment = read_file(format!("/proc/{pid}/environ").as_ref(), LARGEST)
        .ok_or_else(|| format!("{pid}: no such process"))?;
    let variables = environment.split(|byte| *byte == 0).filter(|variable| !variable.is_empty());
    for variable in variables {
        if !out.bytes(variable) {
            break;
        }
    }
    Ok(())
}

pub(super) fn users(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    none(words, "users")?;
    let passwd = read_file("/etc/passwd".as_ref(), LARGEST).ok_or("/etc/passwd cannot be read")?;
    out.line("accounts that can sign in:");
    for line in passwd.split(|byte| *byte == b'\n') {
        let closed = line.ends_with(b"/nologin") || line.ends_with(b"/false");
        if !line.is_empty() && !closed && !out.bytes(&[b"  ", line].concat()) {
            return Ok(());
        }
    }
    let mut seen = BTreeSet::new();
    for pid in pids() {
        let Some(folder) = ProcDir::open(pid) else { continue };
        let facts = folder.facts();
        if let (Some((user, _)), false) = (folder.users(), facts.tty.is_empty()) {
            seen.insert((facts.tty, user_name(user)));
        }
    }
    out.line("on terminals now:");
    for (terminal, user) in seen {
        out.line(&format!("  {terminal}  {user}"));
    }
    Ok(())
}

pub(super) fn mounts(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    none(words, "mounts")?;
    let table = read_file("/proc/self/mountinfo".as_ref(), LARGEST).ok_or("it cannot be read")?;
    for line in String::from_utf8_lossy(&table).lines() {
        // proc_pid_mountinfo(5): the optional fields end with a dash.
        let Some((first, second)) = line.split_once(" - ") else { continue };
        let first: Vec<&str> = first.split(' ').collect();
        let second: Vec<&str> = second.split(' ').collect();
        let (Some(at), Some(options)) = (first.get(4), first.get(5)) else { continue };
        let (kind, source) = (second.first().unwrap_or(&""), second.get(1).unwrap_or(&""));
        if !out.line(&format!("{at}  {kind}  {source}  {options}")) {
            break;
        }
    }
    Ok(())
}
