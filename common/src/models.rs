//! The detection models that are shipped, and what simulates them: the agent loads and runs them, the
//! manager shows them. Their text is our own, in Sigma's format.
//!
//! INVARIANT: the first document of a file is the model; those behind it feed it. Nothing is read
//! out of the texts here.

/// A simulation of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simulation {
    /// What `holdfast simulate run` takes.
    pub name: &'static str,
    /// Title of the model that it proves.
    pub model: &'static str,
    /// ATT&CK technique.
    pub attack: &'static str,
    /// What it does, in words.
    pub what: &'static str,
}

/// One text a file of `common/models`.
pub const SHIPPED: [&str; 24] = [
    include_str!("../models/clear_history.yml"),
    include_str!("../models/clear_logs.yml"),
    include_str!("../models/container_escape.yml"),
    include_str!("../models/credential_files.yml"),
    include_str!("../models/cron.yml"),
    include_str!("../models/crypto_mining.yml"),
    include_str!("../models/disable_tools.yml"),
    include_str!("../models/discovery.yml"),
    include_str!("../models/exfiltration.yml"),
    include_str!("../models/kernel_module.yml"),
    include_str!("../models/linker_hijacking.yml"),
    include_str!("../models/memfd_execution.yml"),
    include_str!("../models/network_sniffing.yml"),
    include_str!("../models/proc_filesystem.yml"),
    include_str!("../models/process_injection.yml"),
    include_str!("../models/ransomware.yml"),
    include_str!("../models/reverse_shell.yml"),
    include_str!("../models/rootkit.yml"),
    include_str!("../models/self_proof.yml"),
    include_str!("../models/setuid.yml"),
    include_str!("../models/shell_profile.yml"),
    include_str!("../models/ssh_authorized_keys.yml"),
    include_str!("../models/systemd_service.yml"),
    include_str!("../models/web_shell.yml"),
];

const fn row(
    name: &'static str,
    model: &'static str,
    attack: &'static str,
    what: &'static str,
) -> Simulation {
    Simulation { name, model, attack, what }
}

/// All simulations.
#[rustfmt::skip]
pub const SIMULATIONS: [Simulation; 23] = [
    row("network-sniffing", "Network Sniffing", "T1040",
        "opens a packet socket for every protocol, reads nothing from it, and closes it after six \
         seconds"),
    row("credential-files", "/etc/passwd and /etc/shadow", "T1003.008",
        "has head(1) read the first byte of /etc/shadow and throws it away"),
    row("proc-filesystem", "Proc Filesystem", "T1003.007",
        "has head(1) read the first byte of this command's own environment in /proc"),
    row("reverse-shell", "Unix Shell", "T1059.004",
        "has bash connect to 127.0.0.2, where this command listens, and hang up"),
    row("web-shell", "Web Shell", "T1505.003",
        "has a copy of sh under the name nginx run id and whoami"),
    row("cron", "Cron", "T1053.003",
        "writes a comment to a new file in /etc/cron.d, removes it after a second"),
    row("systemd-service", "Systemd Service", "T1543.002",
        "writes a comment to a new unit in /etc/systemd/system, removes it after a second; systemd \
         is not told"),
    row("ssh-authorized-keys", "SSH Authorized Keys", "T1098.004",
        "writes a comment to /root/.ssh/authorized_keys2 if there is no such file, removes it \
         after a second"),
    row("shell-profile", "Unix Shell Configuration Modification", "T1546.004",
        "writes a comment to a new file in /etc/profile.d, removes it after a second"),
    row("linker-hijacking", "Dynamic Linker Hijacking", "T1574.006",
        "runs true(1) with LD_PRELOAD naming a file that is not there; writes a comment to a new \
         file in /etc/ld.so.conf.d, removes it after a second"),
    row("kernel-module", "Kernel Modules and Extensions", "T1547.006",
        "runs a copy of true under the name insmod with the name of a module that is not there"),
    row("rootkit", "Rootkit", "T1014",
        "loads an eBPF program that returns 0, attaches it to nothing, and lets it go"),
    row("memfd-execution", "Reflective Code Loading", "T1620",
        "runs a copy of true from memory"),
    row("process-injection", "Ptrace System Calls", "T1055.008",
        "writes eight bytes of a child's stack, as they are, and ends the child"),
    row("setuid", "Setuid and Setgid", "T1548.001",
        "runs a copy of true with the set-user-id bit as nobody, removes it"),
    row("clear-logs", "Clear Linux or Mac System Logs", "T1070.002",
        "writes a new file in /var/log and has rm(1) delete it"),
    row("clear-history", "Clear Command History", "T1070.003",
        "runs a shell that unsets HISTFILE and ends"),
    row("disable-tools", "Disable or Modify Tools", "T1562.001",
        "runs a copy of true under the name systemctl: stop holdfast-simulation.service"),
    row("crypto-mining", "Resource Hijacking", "T1496",
        "runs a copy of true with the options of a miner, and asks 127.0.0.1 for a name below \
         .invalid"),
    row("discovery", "System Information Discovery", "T1082",
        "has a shell run a dozen programs that tell about the host"),
    row("exfiltration", "Exfiltration Over Alternative Protocol", "T1048",
        "runs a copy of true under the name curl, as if it sent /etc/hosts"),
    row("container-escape", "Escape to Host", "T1611",
        "runs a copy of true under the name nsenter, as if it entered pid 1"),
    row("ransomware", "Data Encrypted for Impact", "T1486",
        "writes 200 files in a folder of its own, has one shell overwrite them, removes them"),
];
