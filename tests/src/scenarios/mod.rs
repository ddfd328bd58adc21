//! What a guest proves on its kernel, one function each.
//!
//! Add a scenario by adding a row. `Err` is the reason of a failure; an `Err` that starts with
//! [`SKIP`] is a skip, which the scenario returns only after asserting that the reason holds. A
//! panic is a failure, with its message. Every scenario runs in a process of its own, with a
//! deadline, after `/mnt/ext4` is mounted.

mod guarding;
mod isolating;
mod kernel;
mod protection;
mod sensing;
mod watching;

use std::process::ExitCode;

pub use isolating::is_rebooted;

/// What a reason starts with when it is one to skip.
pub const SKIP: &str = "skip: ";

/// The ext4 that init mounts from the disk.
pub const EXT4: &str = "/mnt/ext4";

/// A name for the outcome line, and what it does.
pub type Scenario = (&'static str, fn() -> Result<(), String>);

/// In the order in which they run.
pub const SCENARIOS: &[Scenario] = &[
    ("shipped_binaries_start", kernel::shipped_binaries_start),
    ("kernel_describes_its_types", kernel::kernel_describes_its_types),
    ("bpffs_can_be_written", kernel::bpffs_can_be_written),
    ("open_on_ext4_is_held_and_answered", kernel::open_on_ext4_is_held_and_answered),
    ("open_on_tmpfs_is_held_and_answered", kernel::open_on_tmpfs_is_held_and_answered),
    ("tcpdump_sees_the_loopback", kernel::tcpdump_sees_the_loopback),
    ("agent_starts_and_every_sensor_is_active", sensing::agent_starts_and_every_sensor_is_active),
    ("exec_is_seen_with_its_whole_command_line", sensing::exec_is_seen_with_its_whole_command_line),
    ("network_is_seen_on_both_sides_and_through_io_uring", watching::network_is_seen),
    ("files_that_matter_are_seen", watching::files_that_matter_are_seen),
    ("mass_rewriting_is_seen", watching::mass_rewriting_is_seen),
    ("deeds_are_seen_with_who_did_them", sensing::deeds_are_seen_with_who_did_them),
    ("a_storm_of_execs_is_accounted_for", sensing::a_storm_of_execs_is_accounted_for),
    ("tcpdump_fires_network_sniffing", sensing::tcpdump_fires_network_sniffing),
    ("packet_socket_fires_network_sniffing", sensing::packet_socket_fires_network_sniffing),
    ("worker_is_caged_on_an_initial_ramfs", protection::worker_is_caged_on_an_initial_ramfs),
    ("eicar_on_ext4_is_denied_and_quarantined", protection::eicar_on_ext4),
    ("eicar_on_tmpfs_is_denied_and_quarantined", protection::eicar_on_tmpfs),
    ("eicar_on_overlay_is_denied_and_quarantined", protection::eicar_on_overlay),
    ("eicar_in_a_namespace_of_one_thread_is_denied", protection::eicar_in_another_namespace),
    ("later_open_of_a_clean_file_stays_in_the_kernel", protection::later_open_stays_in_the_kernel),
    ("killed_agent_lets_held_opens_go", protection::killed_agent_lets_held_opens_go),
    ("isolated_host_reaches_its_manager_alone", isolating::isolated_host_reaches_its_manager_alone),
    (
        "isolated_guest_is_cut_off_again_without_an_agent",
        isolating::isolated_guest_is_cut_off_again_without_an_agent,
    ),
    (
        "another_process_of_root_is_denied_and_told",
        guarding::another_process_of_root_is_denied_and_told,
    ),
    // Last: the guest starts again in its middle.
    (
        "isolated_guest_stays_cut_off_over_a_reboot",
        isolating::isolated_guest_stays_cut_off_over_a_reboot,
    ),
];

/// What a scenario's helper processes do, since guests have no interpreter: `guest --act NAME`.
/// 64 when there is no such act.
#[must_use]
pub fn act(name: &str) -> ExitCode {
    match name {
        "packet-socket" => sensing::open_packet_socket(),
        _ if isolating::knows(name) => isolating::act(name),
        "tamper" => guarding::act(),
        deed => sensing::act(deed),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    format!("{error:#}")
}
