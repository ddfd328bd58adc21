//! What the eBPF programs log, by aya-log, as lines of the agent's own log.
//!
//! They log only what cannot happen by their own reckoning, so a line here is a defect. Read by the
//! reader thread between rounds; nobody waits for it.

use aya::Ebpf;
use aya_log::EbpfLogger;

/// The ring of log lines.
pub(super) struct KernelLog(EbpfLogger<ToTracing>);

impl KernelLog {
    /// `None` when the object has no such ring.
    pub(super) fn open(object: &mut Ebpf) -> Option<Self> {
        match EbpfLogger::init_with_logger(object, ToTracing) {
            Ok(log) => Some(Self(log)),
            Err(error) => {
                tracing::warn!(%error, "the eBPF programs' log cannot be read");
                None
            }
        }
    }

    /// Writes what came.
    pub(super) fn drain(&mut self) {
        self.0.flush();
    }
}

/// The programs' lines as events of `tracing`.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args();
        match record.level() {
            log::Level::Error => tracing::error!("eBPF: {text}"),
            log::Level::Warn => tracing::warn!("eBPF: {text}"),
            log::Level::Info | log::Level::Debug | log::Level::Trace => {
                tracing::info!("eBPF: {text}");
            }
        }
    }

    fn flush(&self) {}
}
