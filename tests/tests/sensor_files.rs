//! Files that matter on this host's kernel: what a process does to one is told, by which way
//! ever it got there, and nothing is told twice.
//!
//! Needs root. One sensor with the shipped list and a list of this test's own serves all tests;
//! each works in a folder of its own. The marks hold nobody.

mod watch;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use holdfast_agent::config;
use holdfast_common::event::FileEvent;
use holdfast_tests::Owned;
use holdfast_tests::uring::{Request, Ring, op};
use watch::{DEADLINE, Watch, python, shell};

const ROLE: &str = "HOLDFAST_FILES_TEST_ROLE";

struct World {
    watch: Watch,
    root: PathBuf,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    // A static is never dropped: what the last run left goes first.
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sensor-files");
    if root.exists() {
        fs::remove_dir_all(&root).expect("what the last run left");
    }
    fs::create_dir_all(&root).expect("folder");
    let root = root.canonicalize().expect("path");
    for name in ["creds", "cron", "homes", "logs", "web", "plain"] {
        fs::create_dir(root.join(name)).expect("folder");
    }
    let rows = [
        ("creds/*", "credentials", "reads"),
        ("cron/*", "cron", "writes"),
        ("homes/*/.ssh/authorized_keys", "ssh_keys", "writes"),
        ("logs/**", "logs", "cuts"),
        ("web/**", "web_root", "writes"),
    ];
    let rows = rows.map(|(path, class, tell)| {
        let path = root.join(path);
        format!("[[add]]\npath = {path:?}\nclass = \"{class}\"\ntell = \"{tell}\"\n")
    });
    let files = toml::from_str(&rows.concat()).expect("config");
    let watch = Watch::start(config::Sensor { files, ..config::Sensor::default() });
    World { watch, root }
});

impl World {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Waits for this action of this process on this file.
    #[track_caller]
    fn told(&self, pid: u32, action: &str, path: &Path) -> FileEvent {
        let path = path.to_str().expect("text");
        let what = format!("{action} {path} by {pid}");
        self.watch.file(&what, |event| {
            event.process.key.pid == pid && event.action == action && event.path == path
        })
    }

    /// A listed file that has been seen. The test's own process is the agent's here: what it does
    /// is left out.
    #[track_caller]
    fn made(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        let pid = shell("echo content > \"$1\"", &[&path]);
        self.told(pid, "write", &path);
        path
    }

    fn actions(&self, pid: u32) -> Vec<String> {
        self.watch.files_of(pid).into_iter().map(|event| event.action).collect()
    }
}

/// Does nothing in an ordinary run; a helper process of another test takes its role here.
#[test]
fn helper_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (what, path) = role.split_once(' ').expect("role");
    let name = std::ffi::CString::new(path).expect("path");
    let mut ring = Ring::new().expect("ring");
    let flags = if what == "write" { libc::O_WRONLY } else { libc::O_RDONLY };
    let open = Request {
        op: op::OPENAT,
        fd: libc::AT_FDCWD,
        address: name.as_ptr().addr() as u64,
        flags: flags.cast_unsigned(),
        ..Request::default()
    };
    let buffer = [b'x'; 8];
    let address = buffer.as_ptr().addr() as u64;
    match what {
        "read" => {
            let fd = ring.run(open).expect("open");
            ring.run(Request { op: op::READ, fd, address, length: 8, ..Request::default() })
                .expect("read");
        }
        "write" => {
            let fd = ring.run(open).expect("open");
            ring.run(Request { op: op::WRITE, fd, address, length: 8, ..Request::default() })
                .expect("write");
        }
        "unlink" => {
            let address = name.as_ptr().addr() as u64;
            let fd = libc::AT_FDCWD;
            ring.run(Request { op: op::UNLINKAT, fd, address, ..Request::default() })
                .expect("unlink");
        }
        other => panic!("no such role: {other}"),
    }
}

#[track_caller]
fn by_io_uring(what: &str, path: &Path) -> u32 {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "helper_process", "--nocapture"])
        .env(ROLE, format!("{what} {}", path.display()))
        .stdout(Stdio::null())
        .spawn()
        .expect("helper");
    let pid = child.id();
    assert!(child.wait().expect("wait").success());
    pid
}

#[test]
fn a_read_of_a_credential_file_is_told_with_who_read_it() {
    let world = &*WORLD;
    let path = world.made("creds/read");
    let pid = shell("exec cat \"$1\" >/dev/null", &[&path]);
    let event = world.told(pid, "read", &path);
    assert_eq!(event.class, "credentials");
    assert_eq!(event.process.args, ["cat", path.to_str().expect("text")]);
    assert_eq!((event.process.uid, event.process.user.as_str()), (0, "root"));
    assert_eq!(event.parents[0].key.pid, std::process::id());
    assert!(event.process.key.start_ns > 0);
}

#[test]
fn the_shipped_list_has_the_shadow_file() {
    let world = &*WORLD;
    let pid = shell("exec cat /etc/shadow >/dev/null", &[]);
    let event = world.told(pid, "read", Path::new("/etc/shadow"));
    assert_eq!(event.class, "credentials");
}

#[test]
fn a_write_is_a_write_alone_and_an_open_for_writing_says_so() {
    let world = &*WORLD;
    let path = world.made("creds/write");
    let pid = shell("echo more >> \"$1\"", &[&path]);
    world.told(pid, "write", &path);
    let opened = shell(": >> \"$1\"", &[&path]);
    world.told(opened, "open_write", &path);
    assert_eq!(world.actions(pid), ["write"]);
    assert_eq!(world.actions(opened), ["open_write"]);
}

#[test]
fn a_write_through_a_mapping_is_an_open_for_writing() {
    let world = &*WORLD;
    let path = world.made("creds/mapped");
    let script =
        "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 4); m[0] = 65";
    let pid = python(script, &[path.to_str().expect("text")]);
    world.told(pid, "open_write", &path);
}

#[test]
fn the_life_of_a_file_is_told_from_its_first_name_to_its_last() {
    let world = &*WORLD;
    let (first, second) = (world.path("cron/first"), world.path("cron/second"));
    let script = "echo job > \"$1\"; exec python3 -c 'import os, sys; os.chmod(sys.argv[1], 0o4755); os.rename(sys.argv[1], sys.argv[2]); os.unlink(sys.argv[2])' \"$1\" \"$2\"";
    let pid = shell(script, &[&first, &second]);
    world.told(pid, "create", &first);
    world.told(pid, "write", &first);
    let chmod = world.told(pid, "attributes", &first);
    assert!(chmod.mode.is_none_or(|mode| mode == 0o4755 && chmod.set_id), "{chmod:?}");
    let rename = world.told(pid, "rename", &second);
    assert_eq!(rename.from.as_deref(), first.to_str());
    world.told(pid, "delete", &second);
}

#[test]
fn a_set_user_id_bit_is_told_with_the_mode() {
    let world = &*WORLD;
    let path = world.made("cron/set-id");
    let pid = shell("exec chmod 4711 \"$1\"", &[&path]);
    let event = world.told(pid, "attributes", &path);
    assert_eq!((event.mode, event.set_id), (Some(0o4711), true));
}

#[test]
fn a_file_that_is_renamed_over_a_listed_one_is_watched_in_its_place() {
    let world = &*WORLD;
    let path = world.made("creds/replaced");
    let new = world.path("plain/new");
    fs::write(&new, "new content\n").expect("write");
    let pid = shell("exec mv \"$1\" \"$2\"", &[&new, &path]);
    let event = world.told(pid, "rename", &path);
    assert_eq!(event.class, "credentials");
    let reader = shell("exec cat \"$1\" >/dev/null", &[&path]);
    world.told(reader, "read", &path);
    assert_eq!(world.actions(pid), ["rename"], "not the number of names of the old one");
}

#[test]
fn a_hard_link_made_and_read_through_is_told_by_the_listed_name() {
    let world = &*WORLD;
    let path = world.made("creds/linked");
    let link = world.path("plain/link");
    let linker = shell("exec ln \"$1\" \"$2\"", &[&path, &link]);
    world.told(linker, "attributes", &path);
    let reader = shell("exec cat \"$1\" >/dev/null", &[&link]);
    world.told(reader, "read", &path);
    let writer = shell("echo more >> \"$1\"", &[&link]);
    world.told(writer, "write", &path);
}

#[test]
fn a_read_through_a_bind_mount_in_another_mount_namespace_is_told() {
    let world = &*WORLD;
    let path = world.made("creds/bound");
    let mount = world.path("plain/mount");
    fs::create_dir(&mount).expect("folder");
    let folder = path.parent().expect("folder");
    let script = "exec unshare -m sh -c 'mount --bind \"$1\" \"$2\" && exec cat \"$2/bound\" >/dev/null' sh \"$1\" \"$2\"";
    let pid = shell(script, &[folder, &mount]);
    world.told(pid, "read", &path);
}

#[test]
fn io_uring_is_no_way_around() {
    let world = &*WORLD;
    let path = world.made("creds/uring");
    match Ring::new() {
        Ok(_) => {}
        Err(error) => {
            let off = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
            assert_ne!(off.trim(), "0", "io_uring is there and gave {error}");
            return holdfast_tests::skip("io_uring_is_no_way_around", "kernel lacks io_uring");
        }
    }
    world.told(by_io_uring("read", &path), "read", &path);
    world.told(by_io_uring("write", &path), "write", &path);
    world.told(by_io_uring("unlink", &path), "delete", &path);
}

#[test]
fn a_new_users_keys_are_watched_as_they_appear() {
    let world = &*WORLD;
    let home = world.path("homes/new");
    let keys = home.join(".ssh/authorized_keys");
    let script = "mkdir -p \"$1/.ssh\"; echo key > \"$1/.ssh/authorized_keys\"";
    let pid = shell(script, &[&home]);
    // It may have been there before its folder could be marked: then it is told as created alone.
    let event = world.watch.file("new keys", |event| event.path == keys.to_str().expect("text"));
    assert_eq!((event.class.as_str(), event.action.as_str()), ("ssh_keys", "create"));
    assert!(pid > 0);
    let later = shell("echo another >> \"$1\"", &[&keys]);
    world.told(later, "write", &keys);
}

#[test]
fn a_watched_folder_that_moves_away_is_left_and_its_successor_watched() {
    let world = &*WORLD;
    let home = world.path("homes/moved");
    let keys = home.join(".ssh/authorized_keys");
    shell("mkdir -p \"$1/.ssh\"; echo key > \"$1/.ssh/authorized_keys\"", &[&home]);
    world.watch.file("keys", |event| event.path == keys.to_str().expect("text"));
    let mover = shell("exec mv \"$1/.ssh\" \"$1/old\"", &[&home]);
    let told = world.told(mover, "rename", &home.join("old"));
    assert_eq!(told.from.as_deref(), home.join(".ssh").to_str());
    let old = shell("echo more >> \"$1/old/authorized_keys\"", &[&home]);
    let again = shell("mkdir \"$1/.ssh\"; echo key > \"$1/.ssh/authorized_keys\"", &[&home]);
    world.watch.file("successor", |event| {
        event.path == keys.to_str().expect("text") && event.process.key.pid >= again
    });
    let writer = shell("echo more >> \"$1\"", &[&keys]);
    world.told(writer, "write", &keys);
    assert_eq!(world.actions(old), Vec::<String>::new(), "it is not on the list any more");
}

#[test]
fn a_link_swapped_in_for_a_folder_is_followed_but_not_to_other_peoples_files() {
    let world = &*WORLD;
    let elsewhere = world.path("plain/elsewhere");
    fs::create_dir(&elsewhere).expect("folder");
    fs::write(elsewhere.join("authorized_keys"), "key\n").expect("write");
    let home = world.path("homes/linked");
    fs::create_dir(&home).expect("home");
    symlink(&elsewhere, home.join(".ssh")).expect("link");
    let keys = home.join(".ssh/authorized_keys");
    let writer = holdfast_tests::until(DEADLINE, || {
        let writer = shell("echo more >> \"$1\"", &[&elsewhere.join("authorized_keys")]);
        let told = || world.actions(writer).first().map(|_| writer);
        holdfast_tests::until(Duration::from_millis(300), told)
    });
    world.told(writer.expect("followed"), "write", &keys);

    // The same by a user, to root's files: that would make root's reads and writes events.
    let hostile = world.path("homes/hostile");
    fs::create_dir(&hostile).expect("home");
    chown(&hostile, Some(1000), Some(1000)).expect("chown");
    symlink(world.path("plain"), hostile.join(".ssh")).expect("link");
    fs::write(world.path("plain/authorized_keys"), "x").expect("write");
    let writer = shell("echo more >> \"$1\"", &[&world.path("plain/authorized_keys")]);
    // Something that comes after it has been told: it would have been, too.
    let mark = world.path("cron/after-hostile");
    let after = shell("echo > \"$1\"", &[&mark]);
    world.told(after, "write", &mark);
    assert_eq!(world.actions(writer), Vec::<String>::new());
}

#[test]
fn a_log_may_grow_but_not_shrink_unseen() {
    let world = &*WORLD;
    let log = world.path("logs/app/app.log");
    shell("mkdir -p \"${1%/*}\"; echo 0123456789 > \"$1\"", &[&log]);
    world.watch.file("log", |event| event.path == log.to_str().expect("text"));
    let grower = shell("echo more >> \"$1\"", &[&log]);
    // Events come in order: when this has been told, the size before the cut is known.
    world.made("cron/after-the-grower");
    let cutter = shell(": > \"$1\"", &[&log]);
    world.told(cutter, "truncate", &log);
    assert_eq!(world.actions(grower), Vec::<String>::new(), "logs grow all day");
    shell("echo 0123456789 > \"$1\"", &[&log]);
    world.made("cron/before-the-wiper");
    let wiper = python(
        "import sys; f = open(sys.argv[1], 'r+b'); f.write(b'zeros'); f.close()",
        &[log.to_str().expect("text")],
    );
    world.told(wiper, "write", &log);
    // truncate(2) opens nothing, so nobody is named, and the next look at the sizes finds it.
    python("import os, sys; os.truncate(sys.argv[1], 1)", &[log.to_str().expect("text")]);
    world.told(0, "truncate", &log);
    let remover = shell("exec rm \"$1\"", &[&log]);
    world.told(remover, "delete", &log);
}

#[test]
fn a_web_root_is_watched_at_any_depth() {
    let world = &*WORLD;
    let deep = world.path("web/a/b/c");
    fs::create_dir_all(&deep).expect("folders");
    let shell_php = deep.join("shell.php");
    let seen = holdfast_tests::until(DEADLINE, || {
        let writer = shell("echo '<?php' > \"$1\"", &[&shell_php]);
        holdfast_tests::until(Duration::from_millis(300), || {
            world.actions(writer).first().map(|_| ())
        })
    });
    seen.expect("watched");
    let event =
        world.watch.file("web shell", |event| event.path == shell_php.to_str().expect("text"));
    assert_eq!(event.class, "web_root");
}

#[test]
fn equal_writes_are_put_together_and_the_account_adds_up() {
    let world = &*WORLD;
    let path = world.made("cron/many");
    let script = "i=0; while [ $i -lt 2000 ]; do echo $i >> \"$1\"; i=$((i+1)); done";
    let pid = shell(script, &[&path]);
    world.told(pid, "write", &path);
    let end = Instant::now() + DEADLINE;
    loop {
        let state = world.watch.sensor.states();
        let state = state.iter().find(|state| state.name == "files that matter").expect("state");
        let told = world.watch.files_of(pid);
        let sum: u64 = told.iter().map(|event| event.count).sum();
        if state.generated == state.delivered + state.aggregated + state.lost && sum > 1 {
            assert!(told.len() < 20, "{} events", told.len());
            return assert_eq!(state.lost, 0);
        }
        assert!(Instant::now() < end, "{state:?}, {sum}");
        std::thread::yield_now();
    }
}

#[test]
fn a_mode_is_never_that_of_a_file_which_took_the_name_since() {
    let world = &*WORLD;
    let path = world.path("cron/raced");
    let script = "import os, sys\np = sys.argv[1]\nfor i in range(200):\n    open(p, 'w').close(); os.chmod(p, 0o4755)\n    n = sys.argv[2]; open(n, 'w').close(); os.chmod(n, 0o600); os.rename(n, p); os.unlink(p)\n";
    let other = world.path("plain/raced");
    let pid = python(script, &[path.to_str().expect("text"), other.to_str().expect("text")]);
    world.told(pid, "delete", &path);
    let set = world.told(pid, "attributes", &path);
    assert!(set.mode.is_none_or(|mode| mode == 0o4755 || mode == 0o600), "{set:?}");
    for event in world.watch.files_of(pid).iter().filter(|event| event.action == "rename") {
        assert!(event.mode.is_none_or(|mode| mode == 0o600), "{event:?}");
        assert!(!event.set_id, "{event:?}");
    }
}

#[test]
fn a_folder_that_a_fuse_server_never_answers_for_is_not_entered() {
    let world = &*WORLD;
    let home = world.path("homes/fuse");
    fs::create_dir_all(home.join(".ssh")).expect("home");
    let options = "fd=3,rootmode=40000,user_id=0,group_id=0";
    let script = format!(
        "exec 3<>/dev/fuse && mount -i -t fuse.silent -o {options} silent \"$1\" && read line"
    );
    let child = Command::new("/bin/sh")
        .args(["-c", &script, "sh"])
        .arg(home.join(".ssh"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("shell");
    let mut child = Owned(child);
    let mounted = || {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let ended = child.0.try_wait().expect("wait").is_some();
        (ended || mounts.contains("homes/fuse/.ssh")).then_some(ended)
    };
    let ended = holdfast_tests::until(DEADLINE, mounted).expect("mounted");
    if ended {
        let fuse = fs::read_to_string("/proc/filesystems").expect("file systems");
        assert!(!fuse.contains("\tfuse\n"), "fuse is there and could not be mounted");
        return holdfast_tests::skip("a_folder_that_a_fuse_server…", "kernel lacks fuse");
    }
    // The mount is a change of the mount table: everything is walked again, and goes on.
    let mark = world.path("cron/after-fuse");
    let writer = shell("echo > \"$1\"", &[&mark]);
    world.told(writer, "write", &mark);
    nix::mount::umount2(&home.join(".ssh"), nix::mount::MntFlags::MNT_DETACH).expect("unmount");
}

#[test]
fn permissions_of_a_listed_folder_are_told() {
    let world = &*WORLD;
    let folder = world.path("web/folder");
    fs::create_dir(&folder).expect("folder");
    let told = holdfast_tests::until(DEADLINE, || {
        let pid = shell("chmod 0755 \"$1\"; exec chmod 0777 \"$1\"", &[&folder]);
        holdfast_tests::until(Duration::from_millis(300), || {
            world.watch.files_of(pid).into_iter().find(|event| event.mode == Some(0o777))
        })
    });
    let event = told.expect("told");
    assert_eq!(
        (event.action.as_str(), event.path.as_str()),
        ("attributes", folder.to_str().expect("text"))
    );
    let mode = fs::metadata(&folder).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o777);
}
