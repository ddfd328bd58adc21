//! The host's own programs that the restricted shell runs: `ss ip journal`.
//!
//! INVARIANT: each is found at a fixed path that only root can write, gets arguments that stand in
//! this file or are checked here sign by sign, and no environment of the user's making. No pager, no
//! file, no address is among them.

use std::path::Path;
use std::process::{Command, Stdio};

use super::out::{Out, shown};
use super::{Done, copy_lines};

/// Lines of the journal, usually and at most.
const LINES: u32 = 100;
const MOST_LINES: u32 = 5000;
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

pub(super) fn ss(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    let arguments = ss_arguments(words)?;
    run("ss", &arguments, out)
}

/// Clusters of letters that show; not those that kill, read files, or write them.
fn ss_arguments(words: &[Vec<u8>]) -> Result<Vec<String>, String> {
    const LETTERS: &[u8] = b"tuxwlnapeimos46H";
    let mut arguments = vec!["-n".to_owned()];
    for word in words {
        match word.as_slice() {
            [b'-', letters @ ..]
                if !letters.is_empty() && letters.iter().all(|one| LETTERS.contains(one)) =>
            {
                arguments.push(String::from_utf8_lossy(word).into_owned());
            }
            _ => return Err("usage: ss [-tuxwlnapeimos46H]".to_owned()),
        }
    }
    Ok(arguments)
}

pub(super) fn ip(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    let arguments = ip_arguments(words)?;
    run("ip", &arguments, out)
}

/// Options, then one object, shown.
fn ip_arguments(words: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let usage = || "usage: ip [-4|-6|-s|-d|-br] addr|link|route|neigh|rule".to_owned();
    let mut arguments = Vec::new();
    let mut words = words.iter();
    let object = loop {
        match words.next().map(Vec::as_slice) {
            Some(word @ (b"-4" | b"-6" | b"-s" | b"-d" | b"-br")) => {
                arguments.push(String::from_utf8_lossy(word).into_owned());
            }
            Some(b"addr" | b"address" | b"a") => break "address",
            Some(b"link" | b"l") => break "link",
            Some(b"route" | b"r") => break "route",
            Some(b"neigh" | b"n") => break "neigh",
            Some(b"rule") => break "rule",
            Some(_) | None => return Err(usage()),
        }
    };
    if words.next().is_some() {
        return Err(usage());
    }
    arguments.extend([object.to_owned(), "show".to_owned()]);
    Ok(arguments)
}

pub(super) fn journal(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    let arguments = journal_arguments(words)?;
    run("journalctl", &arguments, out)
}

fn journal_arguments(words: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let usage = || format!("usage: journal [LINES, at most {MOST_LINES}] [UNIT]");
    let number = |word: &[u8]| -> Option<u32> { std::str::from_utf8(word).ok()?.parse().ok() };
    let (lines, unit) = match words {
        [] => (LINES, None),
        [word] => match number(word) {
            Some(lines) => (lines, None),
            None => (LINES, Some(word)),
        },
        [lines, unit] => (number(lines).ok_or_else(usage)?, Some(unit)),
        _ => return Err(usage()),
    };
    if lines == 0 || lines > MOST_LINES {
        return Err(usage());
    }
    let mut arguments: Vec<String> =
        ["--no-pager", "--quiet", "--output=short-iso"].map(str::to_owned).into();
    arguments.push(format!("--lines={lines}"));
    if let Some(unit) = unit {
        // systemd.unit(5): a name is made of these; globs are not taken.
        let fine = |sign: &u8| sign.is_ascii_alphanumeric() || b":-_.@\\".contains(sign);
        if unit.len() > 255 || unit.is_empty() || !unit.iter().all(fine) {
            return Err(format!("{} is no unit", shown(unit)));
        }
        arguments.push(format!("--unit={}", String::from_utf8_lossy(unit)));
    }
    Ok(arguments)
}

/// Until its end, Ctrl-C, or as much as is printed.
fn run(name: &str, arguments: &[String], out: &mut Out<'_>) -> Done {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    let program = found.into_iter().find(|path| path.is_file());
    let program = program.ok_or_else(|| format!("this host has no {name}"))?;
    let mut child = Command::new(&program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    if let Some(stdout) = child.stdout.take() {
        copy_lines(stdout, out);
    }
    // It is ended, or has ended; where it cannot be killed it ends with the terminal.
    let _ = child.kill();
    let _ = child.wait();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        super::super::words::split(line.as_bytes()).expect(line)
    }

    #[test]
    fn no_word_becomes_an_option_that_is_not_listed() {
        for bad in [
            "-K",
            "-F /etc/shadow",
            "-D /tmp/x",
            "--kill",
            "-tK",
            "-",
            "dst 1.1.1.1",
            "-N x",
            "state all",
            "-t -F",
            "-b",
        ] {
            assert!(ss_arguments(&words(bad)).is_err(), "{bad}");
        }
        assert_eq!(ss_arguments(&words("-tlp -4")).expect("fine"), ["-n", "-tlp", "-4"]);
        for bad in [
            "netns exec x sh",
            "-b /etc/shadow",
            "-batch x",
            "link set lo down",
            "-n x link",
            "addr add 1.1.1.1/8 dev lo",
            "monitor",
            "",
            "-4",
            "route get 1.1.1.1",
            "vrf exec a b",
        ] {
            assert!(ip_arguments(&words(bad)).is_err(), "{bad}");
        }
        assert_eq!(ip_arguments(&words("-br a")).expect("fine"), ["-br", "address", "show"]);
        for bad in
            ["--file=/etc/shadow", "-f", "0", "99999", "5 a b", "5 '*'", "5 a=b", "x 5", "''"]
        {
            let refused = journal_arguments(&words(bad));
            // A dash may stand in a unit's name: behind `--unit=` it is nothing else.
            let fine = refused
                .as_ref()
                .is_ok_and(|all| all.last().is_some_and(|last| last.starts_with("--unit=")));
            assert!(refused.is_err() || fine, "{bad}: {refused:?}");
        }
        let all = journal_arguments(&words("7 ssh.service")).expect("fine");
        assert_eq!(all[3..], ["--lines=7", "--unit=ssh.service"]);
    }
}
