//! What is measured: opens one by one, an untar, a grep.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::figures::percentile;

/// Files of one set of opens.
const SET: usize = 1000;

/// Files of the tree.
pub const TREE: usize = 5000;

/// Microseconds of one pass of opens.
#[derive(Debug, Clone, Copy)]
pub struct Opens {
    pub p50: f64,
    pub p99: f64,
}

/// Makes `SET` files of 4 KiB of text that repeats nowhere.
pub fn make_set(folder: &Path, owner: Option<u32>) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    (0..SET)
        .map(|index| {
            let path = folder.join(format!("file-{index}"));
            fs::write(&path, text(index, 4096))?;
            std::os::unix::fs::chown(&path, owner, owner)?;
            Ok(path)
        })
        .collect()
}

/// Opens and closes each file once.
pub fn open_each(files: &[PathBuf]) -> Result<Opens> {
    let mut times = Vec::with_capacity(files.len());
    for path in files {
        let begin = Instant::now();
        drop(File::open(path).with_context(|| format!("open {}", path.display()))?);
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Opens { p50: percentile(&times, 0.5), p99: percentile(&times, 0.99) })
}

/// Makes a tree of source-like files and a tar of it. Gives back the tar.
pub fn make_tree(folder: &Path, tar: &Path) -> Result<()> {
    for index in 0..TREE {
        let inside = folder.join(format!("module-{}", index / 100));
        fs::create_dir_all(&inside)?;
        fs::write(inside.join(format!("file-{index}.c")), text(index, 1024 + index % 7 * 1024))?;
    }
    time(Command::new("tar").arg("-cf").arg(tar).arg("-C").arg(folder).arg(".")).map(drop)
}

/// Seconds of `grep -r` over a folder; the pattern is in one file.
pub fn grep(folder: &Path) -> Result<f64> {
    time(Command::new("grep").args(["-rl", "word-4999-0 "]).arg(folder))
}

/// Seconds of unpacking into a fresh folder, which is removed again.
pub fn untar(tar: &Path, into: &Path) -> Result<f64> {
    fs::create_dir(into)?;
    let seconds = time(Command::new("tar").arg("-xf").arg(tar).arg("-C").arg(into))?;
    fs::remove_dir_all(into)?;
    Ok(seconds)
}

fn time(command: &mut Command) -> Result<f64> {
    let begin = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(seconds)
}

fn text(seed: usize, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut word = 0;
    while bytes.len() < length {
        // A Vec takes whatever is written to it.
        let _ = write!(bytes, "word-{seed}-{word} ");
        word += 1;
    }
    bytes.truncate(length);
    bytes
}
