//! Records of processes become entries of the process table and events.
//!
//! The kernel's record has all that an event says, so that nothing is read from /proc, where
//! another process may be by now; but for the control group where version 1 is mounted too, and
//! for paths that were too long. An image that was made before is used again.

use std::sync::Arc;
use std::time::Instant;

use holdfast_common::abi::Kind;
use holdfast_common::event::{Activity, ActivityEvent, EventBody, ExecEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey, printable};

use super::activity::namespaces;
use super::decode::process::{Exec, Exit, Fork, Record};
use super::decode::{Who, path_text};
use super::gather::Alike;
use super::proc::{ProcDir, container_of, user_name};
use super::shared::Shared;
use super::storms::Held;

impl Shared {
    /// True when it was told; else it was put together with others.
    pub(super) fn process(&self, record: Record<'_>) -> bool {
        let now = Instant::now();
        match record {
            Record::Exec(exec) => self.exec(&exec, now),
            Record::Fork(fork) => self.fork(&fork, now),
            Record::Exit(exit) => self.exit(&exit, now),
        }
    }

    fn fork(&self, fork: &Fork, now: Instant) -> bool {
        let child = fork.who.key;
        if !self.table.forked(child, fork.parent)
            && let Some(folder) = ProcDir::open_key(child)
        {
            self.table.executed(&ProcessInfo { parent: Some(fork.parent), ..folder.facts() });
        }
        self.note_users(&fork.who, "fork");
        let namespaces = namespaces(fork.flags);
        // Who makes namespaces is of interest each time, who makes processes is not.
        let kind = if namespaces.is_empty() { Kind::Fork } else { Kind::Namespaces };
        let key = self.storms.hash_of((fork.parent, &namespaces));
        let coarse = self.storms.hash_of(&namespaces);
        let alike = Alike { kind, key, coarse, variant: None };
        let Some(image) = self.table.image(fork.parent) else {
            let image = Arc::new(ProcessInfo::default());
            return self.gathered(
                alike,
                now,
                fork.parent,
                image,
                Activity::Fork { child, namespaces },
            );
        };
        self.gathered(alike, now, fork.parent, image, Activity::Fork { child, namespaces })
    }

    fn exit(&self, exit: &Exit, now: Instant) -> bool {
        let key = exit.who.key;
        self.note_users(&exit.who, "exit");
        self.table.ended(key, now);
        let image = self.table.image(key).unwrap_or_default();
        let end = (exit.code, exit.signal);
        let alike = Alike {
            kind: Kind::Exit,
            key: self.storms.hash_of((self.table.parent_of(key), &image.exe, end)),
            coarse: self.storms.hash_of((&image.exe, end)),
            variant: None,
        };
        let activity = Activity::Exit { code: exit.code, signal: exit.signal };
        self.gathered(alike, now, key, image, activity)
    }

    fn exec(&self, exec: &Exec<'_>, now: Instant) -> bool {
        let key = exec.who.key;
        let hash = self.hash_of(&exec.file);
        let image = self.storms.hash(|mut hasher| {
            exec.hash_image(&mut hasher);
            hasher.write_u8(u8::from(hash.is_some()));
        });
        let image = self.storms.image(image, || self.image_of(exec, hash));
        let before = self.table.run(key, exec.parent, Arc::clone(&image));
        // The real user is nothing that exec changes; the effective one is, by set-user-id bits.
        if let Some(before) = before.filter(|before| before.uid != image.uid) {
            self.credentials(key, &image, (before.uid, before.euid), "exec");
        }
        let parent = self.table.parent_of(key);
        let alike = Alike {
            kind: Kind::Exec,
            key: self.storms.hash_of((parent, &exec.file)),
            coarse: self.storms.hash_of(exec.file),
            variant: Some(self.storms.hash(|mut hasher| exec.hash_command(&mut hasher))),
        };
        let told = self.storms.gather().offer(alike, now, Held::Exec(key, parent, image));
        told.map(|held| self.tell(held, 1)).is_some()
    }

    /// Everything but key and parent.
    fn image_of(&self, exec: &Exec<'_>, hash: Option<[u8; 32]>) -> ProcessInfo {
        let key = exec.who.key;
        let live = |name: &str| ProcDir::open_key(key).map(|folder| folder.link(name));
        let before = self.table.image(key);
        let cwd = exec.cwd().or_else(|| live("cwd").filter(|cwd| !cwd.is_empty()));
        let cwd = cwd.or_else(|| Some(before.as_ref()?.cwd.clone())).unwrap_or_default();
        let (args, args_truncated) = exec.args();
        let (cgroup, container) = self.groups_of(exec);
        ProcessInfo {
            exe: exec.exe().or_else(|| live("exe")).unwrap_or_default(),
            comm: exec.who.name(),
            args,
            args_truncated,
            uid: exec.who.uid,
            euid: exec.who.euid,
            login_uid: exec.login_uid,
            user: user_name(exec.who.uid),
            container,
            cgroup,
            session: exec.session,
            tty: exec.terminal(),
            script: script(exec.script, &cwd),
            sha256: hash.map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect()),
            environment: exec.environment(),
            cwd,
            ..ProcessInfo::default()
        }
    }

    fn groups_of(&self, exec: &Exec<'_>) -> (String, Option<String>) {
        if !self.older_groups && exec.cgroup_id != 0 && exec.knows_cgroup() {
            let path = path_text(exec.cgroup);
            let container = container_of(format!("0::{path}").as_bytes());
            return (path, container);
        }
        let key = exec.who.key;
        let find = || ProcDir::open_key(key).map(|folder| folder.groups());
        let known = || {
            let before = self.table.image(key)?;
            Some((before.cgroup.clone(), before.container.clone()))
        };
        // A process that is gone already was, for all we know, where it was before.
        self.storms.groups((exec.cgroup_set, exec.cgroup_id), || find().or_else(known))
    }

    fn hash_of(&self, file: &super::images::FileState) -> Option<[u8; 32]> {
        self.hashes.as_ref()?.get(file)
    }

    /// A record shows who a process is by now: when that is news, it is told.
    pub(super) fn note_users(&self, who: &Who, seen: &'static str) {
        if let Some(before) = self.table.set_users(who.key, who.uid, who.euid)
            && let Some(image) = self.table.image(who.key)
        {
            let call = self.storms.tried_call(who.key).unwrap_or(seen);
            self.credentials(who.key, &image, before, call);
        }
    }

    pub(super) fn credentials(
        &self,
        key: ProcessKey,
        image: &Arc<ProcessInfo>,
        (old_uid, old_euid): (u32, u32),
        call: &str,
    ) {
        let activity = Activity::Credentials {
            call: call.to_owned(),
            old_uid,
            old_euid,
            new_uid: image.uid,
            new_euid: image.euid,
        };
        let alike = Alike {
            kind: Kind::Credentials,
            key: self.storms.hash_of((key, call, old_uid, old_euid, image.uid, image.euid)),
            coarse: self.storms.hash_of(&image.exe),
            variant: None,
        };
        self.gathered(alike, Instant::now(), key, Arc::clone(image), activity);
    }

    /// Tells an activity, or puts it with others. True when it was told.
    pub(super) fn gathered(
        &self,
        alike: Alike,
        now: Instant,
        key: ProcessKey,
        image: Arc<ProcessInfo>,
        activity: Activity,
    ) -> bool {
        let held = Held::Activity(key, image, activity);
        let told = self.storms.gather().offer(alike, now, held);
        told.map(|held| self.tell(held, 1)).is_some()
    }

    /// Something waits for the end of its window.
    pub(super) fn holds_something(&self) -> bool {
        self.storms.gather().holds_something()
    }

    /// Tells what waited long enough; everything when `all`.
    pub(super) fn tell_due(&self, all: bool) {
        let due = self.storms.gather().take_due(Instant::now(), all);
        for (held, count) in due {
            self.tell(held, count);
        }
    }

    pub(super) fn tell(&self, held: Held, count: u64) {
        let whole = |key, image: Arc<ProcessInfo>, parent| ProcessInfo {
            key,
            parent,
            ..Arc::unwrap_or_clone(image)
        };
        match held {
            Held::Exec(key, parent, image) => {
                let process = whole(key, image, parent);
                let parents = self.parents(&process);
                let event = ExecEvent { process, parents, count };
                self.emit(EventBody::Exec(Box::new(event)));
            }
            Held::Activity(key, image, activity) => {
                let process = whole(key, image, self.table.parent_of(key));
                let parents = self.parents(&process);
                let event = ActivityEvent { process, parents, activity, count };
                self.emit(EventBody::Activity(Box::new(event)));
            }
            Held::Network(who, mut event) => {
                event.process = self.process_of(&who);
                event.parents = self.parents(&event.process);
                event.count = count;
                self.emit(EventBody::Network(event));
            }
        }
    }
}

/// The script as an absolute path, where its caller named it from its working directory.
fn script(named: &[u8], cwd: &str) -> Option<String> {
    let named = printable(named);
    match named.as_bytes().first()? {
        b'/' => Some(named),
        _ => Some(format!("{}/{named}", cwd.trim_end_matches('/'))),
    }
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn a_script_is_named_from_where_it_was_called() {
        assert_eq!(script(b"", "/tmp"), None);
        assert_eq!(script(b"/usr/bin/x", "/tmp").as_deref(), Some("/usr/bin/x"));
        assert_eq!(script(b"./run", "/tmp").as_deref(), Some("/tmp/./run"));
        assert_eq!(script(b"run", "/").as_deref(), Some("/run"));
    }
}
