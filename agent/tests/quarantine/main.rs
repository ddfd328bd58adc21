//! The quarantine on real file systems: tmpfs, ext4 and overlay mounts that each test makes for
//! itself. Needs root. Sets no marks and starts no agent.

mod crash;
mod races;
mod restoring;
mod scratch;
mod sealing;
mod state;
