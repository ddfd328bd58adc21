//! What can be looked at without planting anything: marks, attached programs, disk, boot.
//!
//! Cheap enough for every few seconds: three small reads of `/proc` and a `statvfs`. Each answers
//! with evidence in words; none of them repairs anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Below this many free bytes a file may not be sealed any more.
const LEAST_FREE: u64 = 64 << 20;

/// Folders in which systemd keeps what is enabled (systemd.unit(5)).
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The eBPF programs that this process holds attached, one line for each link, from
/// `/proc/self/fdinfo` (Linux 5.8). A link that somebody detached shows no target any more.
pub(super) fn attached_programs() -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    entries
        .flatten()
        .filter(|entry| {
            fs::read_link(entry.path()).is_ok_and(|to| to == Path::new("anon_inode:bpf_link"))
        })
        .filter_map(|entry| {
            let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
            link(&fs::read_to_string(info).ok()?)
        })
        .collect()
}

/// The lines that name a link; `None` for those that come and go while all is well.
fn link(text: &str) -> Option<String> {
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.starts_with("link_type:"))
        .map(|line| line.trim_end())
        .collect();
    let on_demand =
        lines.iter().any(|line| line.starts_with("tp_name:") && line.ends_with("sys_exit"));
    (!on_demand).then(|| lines.join(" ").replace('\t', " "))
}

/// Room for quarantined files below the state folder.
pub(super) fn quarantine_room(state_dir: &Path, used: u64, most: u64) -> Result<String, String> {
    let disk = rustix::fs::statvfs(state_dir)
        .map_err(|error| format!("{}: {error}", state_dir.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let left = most.saturating_sub(used).min(free);
    if free < LEAST_FREE {
        return Err(format!("{} has {free} bytes free", state_dir.display()));
    }
    if left == 0 {
        return Err(format!("its limit of {most} bytes is used up"));
    }
    Ok(format!("{left} bytes left"))
}

/// Whether systemd starts a unit at boot, looked up as `systemctl is-enabled` does.
pub(super) fn enabled_at_boot(unit: &str) -> Result<String, String> {
    for folder in UNIT_FOLDERS {
        let link = fs::read_link(Path::new(folder).join(unit));
        if link.is_ok_and(|to| to == Path::new("/dev/null")) {
            return Err(format!("{unit} is masked in {folder}"));
        }
    }
    for folder in UNIT_FOLDERS {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let wants = name.ends_with(".wants") || name.ends_with(".requires");
            if wants && entry.path().join(unit).symlink_metadata().is_ok() {
                return Ok(format!("{unit} is in {folder}/{name}"));
            }
        }
    }
    Err(format!("{unit} is not enabled: nothing starts the agent at boot"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_named_by_what_it_is_attached_to() {
        let text = "pos:\t0\nflags:\t02000000\nlink_type:\traw_tracepoint\nlink_id:\t7\n\
            prog_tag:\tabc\nprog_id:\t9\ntp_name:\tsched_process_exec\n";
        let named = link(text).expect("a link");
        assert!(named.contains("sched_process_exec") && named.contains("link_id: 7"), "{named}");
        assert_eq!(link(&text.replace("sched_process_exec", "sys_exit")), None);
    }

    #[test]
    fn a_unit_that_nobody_installed_is_not_enabled() {
        let error = enabled_at_boot("no-such-holdfast.service").expect_err("not there");
        assert!(error.contains("not enabled"), "{error}");
    }
}
