//! Records of processes become entries of the process table and events.

use holdfast_common::event::{EventBody, ExecEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey};

use super::decode::Who;
use super::decode::process::{Exec, Record};
use super::proc::{ProcDir, user_name};
use super::shared::Shared;

impl Shared {
    pub(super) fn process(&self, record: Record) {
        match record {
            Record::Exec(exec) => self.exec(exec),
            Record::Fork(child, parent) => self.fork(&child, parent),
            Record::Exit(who) => self.table.ended(who.key),
        }
    }

    fn fork(&self, child: &Who, parent: ProcessKey) {
        if self.table.forked(child.key, parent) {
            return;
        }
        if let Some(folder) = ProcDir::open_key(child.key) {
            self.table.executed(&ProcessInfo { parent: Some(parent), ..folder.facts() });
        }
    }

    fn exec(&self, exec: Exec) {
        let before = self.table.get(exec.who.key);
        // Only what cannot change between the record and now is taken from /proc.
        let folder = ProcDir::open_key(exec.who.key);
        let live = |name: &str| folder.as_ref().map(|folder| folder.link(name));
        let container = match &folder {
            Some(folder) => folder.container(),
            None => before.as_ref().and_then(|info| info.container.clone()),
        };
        let process = ProcessInfo {
            key: exec.who.key,
            parent: exec.parent,
            exe: exec.exe.or_else(|| live("exe")).unwrap_or_default(),
            comm: exec.who.comm,
            args: exec.args,
            args_truncated: exec.args_truncated,
            uid: exec.who.uid,
            euid: exec.who.euid,
            login_uid: exec.login_uid,
            user: user_name(exec.who.uid),
            cwd: live("cwd").filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| {
                before.as_ref().map(|info| info.cwd.clone()).unwrap_or_default()
            }),
            container,
            ..ProcessInfo::default()
        };
        self.table.executed(&process);
        let process = self.table.get(process.key).unwrap_or(process);
        let parents = self.parents(&process);
        self.emit(EventBody::Exec(Box::new(ExecEvent { process, parents, count: 1 })));
    }
}
