//! How many events a second the detection models take, on one core.
//!
//! All of SigmaHQ's Linux rules that can fire here, and the shipped models, over what an ordinary
//! host does: mostly programs that nobody minds, some network and files. Events differ from each
//! other as real ones do; nothing is cached between them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_agent::detect::Models;
use holdfast_agent::detect::book::Book;
use holdfast_agent::detect::rules::Collected;
use holdfast_common::event::{EventBody, ExecEvent, FileEvent, NetworkEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use uuid::Uuid;

/// Of one round.
const EVENTS: usize = 20_000;
/// Rounds are repeated for at least so long.
const LONG: Duration = Duration::from_secs(3);

/// Command lines as they are seen on hosts; `@` is a number that differs from event to event.
const LINES: [(&str, &str, &str); 24] = [
    ("/usr/bin/dash", "/usr/sbin/cron", "/bin/sh -c test -x /usr/sbin/anacron || run-parts @"),
    ("/usr/bin/ls", "/usr/bin/bash", "ls --color=auto -la /srv/data/@"),
    ("/usr/bin/grep", "/usr/bin/bash", "grep -rn some_function_@ src/ include/"),
    ("/usr/bin/sed", "/usr/bin/dash", "sed -n s/^version=//p /usr/share/app/@/release"),
    ("/usr/bin/git", "/usr/bin/bash", "git status --porcelain --branch @"),
    ("/usr/bin/git", "/usr/bin/git", "/usr/lib/git-core/git rev-list --objects --stdin --@"),
    ("/usr/bin/gcc-14", "/usr/bin/make", "gcc -O2 -g -Wall -Iinclude -c -o build/@.o src/@.c"),
    ("/usr/bin/x86_64-linux-gnu-as", "/usr/bin/gcc-14", "as --64 -o /tmp/cc@.o /tmp/cc@.s"),
    ("/usr/bin/make", "/usr/bin/bash", "make -j8 all V=0 BUILD=@"),
    ("/usr/bin/python3.13", "/usr/bin/bash", "python3 -m app.worker --queue default --id @"),
    (
        "/usr/bin/node",
        "/usr/bin/npm",
        "node /srv/app/node_modules/.bin/webpack --mode=production @",
    ),
    ("/usr/bin/cat", "/usr/bin/dash", "cat /sys/class/net/eth0/statistics/rx_bytes @"),
    ("/usr/bin/sleep", "/usr/bin/dash", "sleep @"),
    ("/usr/bin/date", "/usr/bin/dash", "date +%s --date=@"),
    ("/usr/bin/cp", "/usr/bin/rsync", "cp --preserve=all /srv/in/@ /srv/out/@"),
    ("/usr/bin/tr", "/usr/bin/dash", "tr -d \\n"),
    ("/usr/bin/awk", "/usr/bin/dash", "awk {print $@} /var/lib/app/stats"),
    ("/usr/bin/expr", "/usr/bin/dash", "expr @ + 1"),
    ("/usr/bin/runc", "/usr/bin/containerd-shim-runc-v2", "runc --root /run/containerd exec @"),
    ("/usr/bin/postgres", "/usr/bin/postgres", "postgres: worker @ SELECT"),
    ("/usr/sbin/logrotate", "/usr/lib/systemd/systemd", "/usr/sbin/logrotate /etc/logrotate.conf"),
    ("/usr/bin/dpkg-query", "/usr/bin/dash", "dpkg-query --show --showformat=${Version} lib@"),
    ("/usr/lib/systemd/systemd-executor", "/usr/lib/systemd/systemd", "(sd-@)"),
    ("/usr/bin/ssh", "/usr/bin/git", "ssh -o SendEnv=GIT_PROTOCOL git@host git-upload-pack @"),
];

/// Events for each second of the processor's time on this one thread: what others do on the
/// machine meanwhile is not counted. Fails without SigmaHQ's rules in the shared folder.
pub fn sigma_rate() -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let models = Models::with_book(folder.path(), book()?)?;
    let events: Vec<EventBody> = (0..EVENTS).map(event).collect();
    let mut rates = Vec::new();
    let begun = processor_time();
    let mut fired = 0;
    while rates.len() < 3 || processor_time() < begun + LONG {
        let start = processor_time();
        for event in &events {
            fired += models.evaluate(Uuid::nil(), event).len();
        }
        rates.push(EVENTS as f64 / (processor_time() - start).as_secs_f64());
    }
    let matching = events.iter().filter(|event| models.matching(event) > 0).count();
    let rules = models.book().models.iter().filter(|model| model.why_not.is_none()).count();
    println!(
        "{rules} rules, {EVENTS} events, {matching} of them match something, {fired} detections"
    );
    Ok(super::figures::median(&rates))
}

/// Of this thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The rules that can fire.
fn book() -> Result<Book> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/sigma/rules/linux");
    let mut files = Vec::new();
    below(&shared, &mut files).with_context(|| format!("read {}", shared.display()))?;
    let mut all = Collected::default();
    for file in &files {
        all.add(&file.display().to_string(), &std::fs::read_to_string(file)?);
    }
    let reach = Book::new(all);
    let mut can = Collected::default();
    for file in files {
        let origin = file.display().to_string();
        let fires = reach.models.iter().any(|one| one.origin == origin && one.why_not.is_none());
        if fires {
            can.add(&origin, &std::fs::read_to_string(&file)?);
        }
    }
    can.add_shipped();
    Ok(Book::new(can))
}

fn below(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            below(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// Of ten events seven are programs that start, two network, one a file.
fn event(number: usize) -> EventBody {
    let (exe, parent, line) = LINES[number * 7 % LINES.len()];
    let line = line.replace('@', &(number * 7919 % 100_003).to_string());
    let pid = u32::try_from(1000 + number).unwrap_or(u32::MAX);
    let process = info(pid, exe, &line);
    let parents = vec![
        info(900, parent, &format!("{parent} --serve")),
        info(2, "/usr/sbin/sshd", "sshd: deploy@pts/0"),
        info(1, "/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd --system"),
    ];
    match number % 10 {
        7 | 8 => EventBody::Network(Box::new(NetworkEvent {
            process,
            parents,
            action: "connect".to_owned(),
            protocol: "tcp".to_owned(),
            local_address: "10.0.0.5".to_owned(),
            local_port: 40_000,
            remote_address: format!("10.1.{}.{}", number % 200, number % 250),
            remote_port: 443,
            dns_name: String::new(),
            dns_type: String::new(),
            dns_answers: Vec::new(),
            count: 1,
        })),
        9 => EventBody::File(Box::new(FileEvent {
            process,
            parents,
            action: "write".to_owned(),
            path: format!("/var/log/app/{number}.log"),
            from: None,
            class: "logs".to_owned(),
            mode: Some(0o640),
            set_id: false,
            count: 1,
        })),
        _ => EventBody::Exec(Box::new(ExecEvent { process, parents, count: 1 })),
    }
}

fn info(pid: u32, exe: &str, line: &str) -> ProcessInfo {
    ProcessInfo {
        key: ProcessKey { pid, start_ns: 10_000_000 },
        exe: exe.to_owned(),
        comm: exe.rsplit('/').next().unwrap_or_default().chars().take(15).collect(),
        args: line.split(' ').map(str::to_owned).collect(),
        uid: 1000,
        euid: 1000,
        login_uid: Some(1000),
        user: "deploy".to_owned(),
        cwd: "/srv/app".to_owned(),
        ..ProcessInfo::default()
    }
}
