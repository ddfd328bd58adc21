//! Refuses to cut off a machine that somebody only tries something out on.
//!
//! A trial is recognised by either of two signs: the config names a cgroup of its own, or the
//! environment says `HOLDFAST_ISOLATION=namespace` (the repository's cargo config and its test
//! harness do). Then the process must be in another network namespace than the machine, and the
//! cgroup must not be the root. There is no way around it but to take the signs away.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Says that only namespaces of one's own may be cut off.
const VARIABLE: &str = "HOLDFAST_ISOLATION";

/// The cgroup that is to be cut off, opened, and its path.
///
/// # Errors
/// Why it must not be, or cannot be found.
pub(super) fn cgroup(configured: Option<&Path>) -> Result<(File, PathBuf), String> {
    let trial = std::env::var_os(VARIABLE).is_some_and(|value| value == "namespace");
    let root = root_cgroup();
    let path = match (configured, &root) {
        (Some(path), _) => path.to_owned(),
        (None, Some(root)) => root.clone(),
        (None, None) => return Err("no cgroup file system (version 2) is mounted".to_owned()),
    };
    let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if trial || configured.is_some() {
        refuse_this_machine(&path, root.as_deref())?;
    }
    Ok((file, path))
}

fn refuse_this_machine(cgroup: &Path, root: Option<&Path>) -> Result<(), String> {
    match in_first_namespace() {
        Some(false) => {}
        Some(true) => {
            return Err("refused: this is a trial, and this is the machine's own network \
                        namespace"
                .to_owned());
        }
        None => return Err("refused: network namespaces cannot be told apart here".to_owned()),
    }
    let real = |path: &Path| path.canonicalize().ok();
    if root.is_some_and(|root| real(root) == real(cgroup)) {
        return Err("refused: this is a trial, and this is the machine's root cgroup".to_owned());
    }
    Ok(())
}

/// Whether this thread is in the network namespace of process 1, which is not always shown, or in
/// the first one, which has a number of its own since 6.18 (`NET_NS_INIT_INO`).
fn in_first_namespace() -> Option<bool> {
    const FIRST: u64 = 0xefff_fff9;
    let number = |of: &str| Some(std::fs::metadata(format!("/proc/{of}/ns/net")).ok()?.ino());
    let own = number("thread-self")?;
    if own == FIRST {
        return Some(true);
    }
    if let Some(of_init) = number("1") {
        return Some(own == of_init);
    }
    let uname = rustix::system::uname();
    let mut release = uname.release().to_str().ok()?.split(['.', '-']).map(str::parse::<u32>);
    let (major, minor) = (release.next()?.ok()?, release.next()?.ok()?);
    ((major, minor) >= (6, 18)).then_some(false)
}

/// Where the hierarchy of version 2 is mounted, whole.
fn root_cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        (file_system.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_itself_is_refused_in_a_trial() {
        let root = root_cgroup().expect("cgroup2");
        let error = cgroup(Some(&root)).expect_err("this machine");
        assert!(error.contains("own network namespace"), "{error}");
        let error = cgroup(Some(Path::new("/nowhere"))).expect_err("no such folder");
        assert!(error.contains("/nowhere"), "{error}");
    }
}
