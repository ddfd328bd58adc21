//! Files, looked at: `ls cd pwd cat stat find hash`.
//!
//! Only regular files are read, and never waited for; those of the kernel that show memory, act when
//! they are read, or give each line to one reader alone are refused.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use holdfast_common::wire::hex;
use md5::{Digest, Md5};
use sha2::Sha256;

use super::out::{Out, shown};
use super::{Done, copy_lines, none, one};
use crate::sensor::proc::user_name;

/// Bytes that `cat` shows.
const CAT: u64 = 1 << 20;
/// Names of one folder.
const NAMES: usize = 50_000;
/// Entries that `find` looks at, and its depth.
const ENTRIES: usize = 500_000;
const DEPTH: usize = 64;
/// Names in /proc that are memory, or that act.
const PROC: [&str; 8] =
    ["mem", "kcore", "kmsg", "pagemap", "kpagecount", "kpageflags", "kpagecgroup", "vmcore"];

fn path(word: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(word.to_vec()))
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", shown(path.as_os_str().as_bytes()))
}

pub(super) fn cd(words: &[Vec<u8>]) -> Done {
    let to = path(one(words, "cd PATH")?);
    std::env::set_current_dir(&to).map_err(|error| failed(&to, &error))
}

pub(super) fn pwd(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    none(words, "pwd")?;
    let here = std::env::current_dir().map_err(|error| error.to_string())?;
    out.bytes(here.as_os_str().as_bytes());
    Ok(())
}

pub(super) fn ls(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    const USAGE: &str = "usage: ls [-l] [-a] [PATH]";
    let (mut long, mut all, mut at) = (false, false, None);
    for word in words {
        match word.as_slice() {
            b"-l" => long = true,
            b"-a" => all = true,
            b"-la" | b"-al" => (long, all) = (true, true),
            [b'-', _, ..] => return Err(USAGE.to_owned()),
            _ if at.is_some() => return Err(USAGE.to_owned()),
            word => at = Some(path(word)),
        }
    }
    let at = at.unwrap_or_else(|| PathBuf::from("."));
    let facts = fs::symlink_metadata(&at).map_err(|error| failed(&at, &error))?;
    // A folder behind a link is one.
    let folder = fs::metadata(&at).is_ok_and(|facts| facts.is_dir());
    if !folder {
        out.bytes(&line(&at, at.as_os_str().as_bytes(), &facts, long));
        return Ok(());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&at).map_err(|error| failed(&at, &error))? {
        let name = entry.map_err(|error| failed(&at, &error))?.file_name();
        if names.len() >= NAMES || !out.goes_on() {
            out.line(&format!("(more than {NAMES} names: not sorted whole)"));
            break;
        }
        if all || !name.as_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let whole = at.join(&name);
        // It may be gone meanwhile.
        let Ok(facts) = fs::symlink_metadata(&whole) else { continue };
        if !out.bytes(&line(&whole, name.as_bytes(), &facts, long)) {
            break;
        }
    }
    Ok(())
}

fn line(path: &Path, name: &[u8], facts: &Metadata, long: bool) -> Vec<u8> {
    let mut line = Vec::new();
    if long {
        let (uid, gid, size) = (user_name(facts.uid()), facts.gid(), facts.size());
        let when = time(facts.mtime());
        let (mode, links) = (mode(facts), facts.nlink());
        line.extend(format!("{mode} {links:>3} {uid:<8} {gid:>5} {size:>12} {when} ").bytes());
    }
    line.extend_from_slice(name);
    if long && facts.is_symlink() {
        let to = fs::read_link(path).unwrap_or_default();
        line.extend_from_slice(b" -> ");
        line.extend_from_slice(to.as_os_str().as_bytes());
    } else if !long && facts.is_dir() {
        line.push(b'/');
    }
    line
}

fn kind(facts: &Metadata) -> (char, &'static str) {
    let kind = facts.file_type();
    match () {
        () if kind.is_dir() => ('d', "folder"),
        () if kind.is_symlink() => ('l', "symbolic link"),
        () if kind.is_block_device() => ('b', "block device"),
        () if kind.is_char_device() => ('c', "character device"),
        () if kind.is_fifo() => ('p', "pipe"),
        () if kind.is_socket() => ('s', "socket"),
        () => ('-', "regular file"),
    }
}

fn mode(facts: &Metadata) -> String {
    let bits = facts.mode();
    let mut text = String::from(kind(facts).0);
    for (shift, special, set, unset) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let part = bits >> shift;
        text.push(if part & 4 == 0 { '-' } else { 'r' });
        text.push(if part & 2 == 0 { '-' } else { 'w' });
        text.push(match (part & 1 != 0, bits & special != 0) {
            (true, true) => set,
            (false, true) => unset,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

fn time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds);
    time.map_or_else(
        |_| seconds.to_string(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

pub(super) fn stat(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    let at = path(one(words, "stat PATH")?);
    let facts = fs::symlink_metadata(&at).map_err(|error| failed(&at, &error))?;
    let device = facts.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    out.bytes(at.as_os_str().as_bytes());
    if facts.is_symlink() {
        let to = fs::read_link(&at).unwrap_or_default();
        out.bytes(&[b"  leads to ", to.as_os_str().as_bytes()].concat());
    }
    out.line(&format!("  {}, {} bytes, {} blocks", kind(&facts).1, facts.size(), facts.blocks()));
    out.line(&format!("  mode {} ({:04o})", mode(&facts), facts.mode() & 0o7777));
    out.line(&format!(
        "  owner {} ({}), group {}",
        user_name(facts.uid()),
        facts.uid(),
        facts.gid()
    ));
    out.line(&format!("  device {major}:{minor}, inode {}, {} names", facts.ino(), facts.nlink()));
    out.line(&format!("  content changed {}", time(facts.mtime())));
    out.line(&format!("  status changed  {}", time(facts.ctime())));
    out.line(&format!("  read            {}", time(facts.atime())));
    Ok(())
}

/// A regular file that can be read without doing anything by it.
fn open(at: &Path) -> Result<File, String> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    // A device or pipe is not even opened; what is opened is looked at again.
    if !fs::metadata(at).map_err(|error| failed(at, &error))?.is_file() {
        return Err(failed(at, &"not a regular file"));
    }
    let file = File::options()
        .read(true)
        .custom_flags(flags)
        .open(at)
        .map_err(|error| failed(at, &error))?;
    if !file.metadata().map_err(|error| failed(at, &error))?.is_file() {
        return Err(failed(at, &"not a regular file"));
    }
    let system = rustix::fs::fstatfs(&file).map_err(|error| failed(at, &error))?.f_type;
    // By its descriptor: a link or `..` may lead to it under another name.
    let real = fs::read_link(format!("/proc/self/fd/{}", {
        use std::os::fd::AsRawFd;
        file.as_raw_fd()
    }))
    .unwrap_or_default();
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let refused = match u32::try_from(system).unwrap_or(0) {
        // PROC_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, DEBUGFS_MAGIC of linux/magic.h
        0x9fa0 => PROC.contains(&name.as_str()),
        0x6265_6572 => name.starts_with("resource") || name == "rom" || name == "config",
        0x7472_6163 | 0x6462_6720 => true,
        _ => false,
    };
    if refused { Err(failed(at, &"this is the kernel's; it is not read here")) } else { Ok(file) }
}

pub(super) fn cat(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    let at = path(one(words, "cat FILE")?);
    let file = open(&at)?;
    let mut limited = file.take(CAT);
    copy_lines(&mut limited, out);
    if limited.limit() == 0 {
        out.line("(the first MiB of it)");
    }
    Ok(())
}

pub(super) fn hash(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    if words.is_empty() {
        return Err("usage: hash FILE...".to_owned());
    }
    let mut chunk = vec![0; 256 << 10];
    for word in words {
        let at = path(word);
        let mut file = open(&at)?;
        let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
        loop {
            if !out.goes_on() {
                return Ok(());
            }
            match file.read(&mut chunk).map_err(|error| failed(&at, &error))? {
                0 => break,
                read => {
                    sha256.update(&chunk[..read]);
                    md5.update(&chunk[..read]);
                }
            }
        }
        out.bytes(&[hex(&sha256.finalize()).as_bytes(), b"  ", word].concat());
        out.bytes(&[hex(&md5.finalize()).as_bytes(), b"  ", word].concat());
    }
    Ok(())
}

struct Wanted {
    name: Option<GlobMatcher>,
    kind: Option<char>,
    depth: usize,
}

pub(super) fn find(words: &[Vec<u8>], out: &mut Out<'_>) -> Done {
    const USAGE: &str = "usage: find [PATH] [-name GLOB] [-type f|d|l] [-maxdepth N]";
    let usage = || USAGE.to_owned();
    let mut wanted = Wanted { name: None, kind: None, depth: DEPTH };
    let mut at = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().and_then(|word| std::str::from_utf8(word).ok());
        match word.as_slice() {
            b"-name" => {
                let glob = GlobBuilder::new(value().ok_or_else(usage)?).build();
                let glob = glob.map_err(|error| format!("-name: {error}"))?;
                wanted.name = Some(glob.compile_matcher());
            }
            b"-type" => match value() {
                Some("f") => wanted.kind = Some('-'),
                Some("d") => wanted.kind = Some('d'),
                Some("l") => wanted.kind = Some('l'),
                Some(_) | None => return Err(usage()),
            },
            b"-maxdepth" => {
                let depth = value().and_then(|text| text.parse().ok()).ok_or_else(usage)?;
                wanted.depth = DEPTH.min(depth);
            }
            [b'-', ..] => return Err(usage()),
            _ if at.is_some() => return Err(usage()),
            word => at = Some(path(word)),
        }
    }
    let at = at.unwrap_or_else(|| PathBuf::from("."));
    let facts = fs::symlink_metadata(&at).map_err(|error| failed(&at, &error))?;
    let mut looked = 0;
    walk(&at, &facts, 0, &wanted, &mut looked, out);
    if looked >= ENTRIES {
        out.line(&format!("({ENTRIES} entries were looked at; there are more)"));
    }
    Ok(())
}

/// Links are not followed. Folders that cannot be read are as if they were empty.
fn walk(
    at: &Path,
    facts: &Metadata,
    depth: usize,
    wanted: &Wanted,
    looked: &mut usize,
    out: &mut Out<'_>,
) {
    *looked += 1;
    let name = at.file_name().unwrap_or(at.as_os_str());
    let fits = wanted.name.as_ref().is_none_or(|glob| glob.is_match(name))
        && wanted.kind.is_none_or(|wanted| wanted == kind(facts).0);
    if fits && !out.bytes(at.as_os_str().as_bytes()) {
        return;
    }
    if !facts.is_dir() || depth >= wanted.depth {
        return;
    }
    let Ok(folder) = fs::read_dir(at) else { return };
    for entry in folder.flatten() {
        if *looked >= ENTRIES || !out.goes_on() {
            return;
        }
        let Ok(facts) = entry.metadata() else { continue };
        walk(&entry.path(), &facts, depth + 1, wanted, looked, out);
    }
}
