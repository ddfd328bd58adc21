//! The models that this program brings along: our own text, in Sigma's format.

/// One text a file of `agent/models`.
pub(super) const SHIPPED: [&str; 24] = [
    include_str!("../../models/clear_history.yml"),
    include_str!("../../models/clear_logs.yml"),
    include_str!("../../models/container_escape.yml"),
    include_str!("../../models/credential_files.yml"),
    include_str!("../../models/cron.yml"),
    include_str!("../../models/crypto_mining.yml"),
    include_str!("../../models/disable_tools.yml"),
    include_str!("../../models/discovery.yml"),
    include_str!("../../models/exfiltration.yml"),
    include_str!("../../models/kernel_module.yml"),
    include_str!("../../models/linker_hijacking.yml"),
    include_str!("../../models/memfd_execution.yml"),
    include_str!("../../models/network_sniffing.yml"),
    include_str!("../../models/proc_filesystem.yml"),
    include_str!("../../models/process_injection.yml"),
    include_str!("../../models/ransomware.yml"),
    include_str!("../../models/reverse_shell.yml"),
    include_str!("../../models/rootkit.yml"),
    include_str!("../../models/self_proof.yml"),
    include_str!("../../models/setuid.yml"),
    include_str!("../../models/shell_profile.yml"),
    include_str!("../../models/ssh_authorized_keys.yml"),
    include_str!("../../models/systemd_service.yml"),
    include_str!("../../models/web_shell.yml"),
];
