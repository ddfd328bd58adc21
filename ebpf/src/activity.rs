//! What processes do beside: how its records are made, and the tracepoints that tell.
//!
//! `hooks.rs` has the programs that are called by the kernel's own functions, `calls.rs` the watch
//! of all system calls where those are refused.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use holdfast_common::abi::{Field, Kind, call};

use crate::kernel::{Address, at, current, field, head, kernel_text, process};
use crate::maps::{ActivityScratch, activity_scratch, agent, count_lost, offset, send_activity};

/// Makes and sends one record about the thread that runs. `fill` gets it with everything empty.
#[inline(always)]
pub fn report(kind: Kind, call: u32, attempt: bool, fill: impl FnOnce(&mut ActivityScratch)) {
    let Some(scratch) = activity_scratch() else { return count_lost(kind) };
    let record = &mut scratch.record;
    record.head = head(kind, current());
    record.call = call;
    record.attempt = u32::from(attempt);
    record.values = [0; 4];
    record.target = 0;
    record.target_start_ns = 0;
    record.path_len = 0;
    record.texts[0][0] = 0;
    record.texts[1][0] = 0;
    record.texts[2][0] = 0;
    fill(scratch);
    send_activity(kind, scratch);
}

/// Names the other process.
#[inline(always)]
pub fn aim(scratch: &mut ActivityScratch, task: Address) {
    (scratch.record.target, scratch.record.target_start_ns) = process(task);
}

/// `TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task, int group,
/// int result)`: signals from others to the agent and its workers.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn activity_signal(context: RawTracePointContext) -> i32 {
    const SIGCHLD: u32 = 17;
    /// `SEND_SIG_NOINFO` and `SEND_SIG_PRIV` stand for a pointer: by `cgroup.kill`, by the kernel.
    const LAST_MARK: u64 = 2;
    /// In `struct kernel_siginfo`, part of the interface to programs.
    const SI_CODE: u64 = 8;
    let task: Address = context.arg(2);
    let target: u32 = field(task, Field::TaskTgid);
    if target != agent() {
        let parent: Address = field(task, Field::TaskParent);
        if field::<u32>(parent, Field::TaskTgid) != agent() {
            return 0;
        }
    }
    let signal = context.arg::<u64>(0) as u32;
    let sender: u32 = field(current(), Field::TaskTgid);
    let info: Address = context.arg(1);
    let by_kernel = info > LAST_MARK && at::<i32>(info.wrapping_add(SI_CODE)) > 0;
    if sender == agent() || sender == target || sender == 0 || signal == SIGCHLD || by_kernel {
        return 0;
    }
    report(Kind::Signal, call::SIGNAL, false, |scratch| {
        scratch.record.values[0] = u64::from(signal);
        aim(scratch, task);
    });
    0
}

/// `TP_PROTO(struct module *mod)`
#[raw_tracepoint(tracepoint = "module_load")]
pub fn activity_module(context: RawTracePointContext) -> i32 {
    let module: Address = context.arg(0);
    report(Kind::ModuleLoad, call::MODULE, false, |scratch| {
        scratch.record.values[0] = field(module, Field::ModuleTaints);
        if let Some(name) = offset(Field::ModuleName) {
            kernel_text(&mut scratch.record.texts[0], module.wrapping_add(name as u64));
        }
    });
    0
}
