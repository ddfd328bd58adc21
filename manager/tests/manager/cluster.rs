//! A PostgreSQL cluster of the tests' own, from the distribution's binaries: a Unix socket in a
//! folder of its own, no network, an unprivileged user. It ends with the test program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The running server.
struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
}

/// The address of a new, empty database.
pub fn database() -> String {
    let cluster = CLUSTER.get_or_init(Cluster::start);
    let name = format!("manager{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let folder = cluster.folder.display();
    let created = Command::new(cluster.bin.join("createdb"))
        .args(["--host", &folder.to_string(), "--username", "holdfast", &name])
        .output()
        .expect("createdb");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let host = cluster.folder.to_string_lossy().replace('/', "%2F");
    format!("postgres://holdfast@{host}/{name}")
}

impl Cluster {
    fn start() -> Self {
        let bin = newest_bin();
        let folder = PathBuf::from(format!("/tmp/holdfast-pg-{}", std::process::id()));
        forget_old();
        std::fs::create_dir(&folder).expect("folder");
        let root = rustix::process::geteuid().is_root();
        if root {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let data = folder.join("data");
        let mut initdb = unprivileged(root, &bin.join("initdb"));
        run(initdb
            .args(["--username=holdfast", "--auth=trust", "--encoding=UTF8", "--no-locale"])
            .args(["--no-sync", "--pgdata"])
            .arg(&data));
        let mut server = unprivileged(root, &bin.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(&folder).args([
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "max_connections=200",
            "-c",
            "log_min_messages=fatal",
        ]);
        // The server gets a signal when the thread that started it ends: one that never does.
        std::thread::spawn(move || {
            let mut child = server.spawn().expect("start postgres");
            let _ = child.wait();
            loop {
                std::thread::park();
            }
        });
        let cluster = Self { folder, bin };
        cluster.wait();
        cluster
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let ready = || {
            Command::new(self.bin.join("pg_isready"))
                .args(["--quiet", "--host", &self.folder.to_string_lossy()])
                .status()
                .is_ok_and(|status| status.success())
        };
        while !ready() {
            assert!(Instant::now() < deadline, "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A command of the user `postgres` that ends with this program.
fn unprivileged(root: bool, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg(program);
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("start a command");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

fn newest_bin() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL's server: apt install postgresql-15")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .collect();
    versions.sort();
    versions.pop().expect("a version of PostgreSQL").1
}

/// Folders of test programs that ended.
fn forget_old() {
    for entry in std::fs::read_dir("/tmp").expect("/tmp").flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("holdfast-pg-"));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
