//! What agent and manager tell each other over the link, beside events and tasks.
//!
//! The messages themselves are made from `proto/link.proto`; here is what they carry as JSON.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::control::StatusReport;

/// Messages and services of `proto/link.proto`.
#[cfg(feature = "link")]
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from the commented .proto file"
)]
pub mod wire {
    tonic::include_proto!("holdfast.link.v1");
}

/// Messages' encoding, as tonic's own but for the buffers that each stream keeps: tonic's have
/// 8 KiB in either direction, which a fleet of idle streams would fill memory with. They grow for
/// what is larger.
#[cfg(feature = "link")]
#[derive(Debug, Clone)]
pub struct SmallBuffers<T, U>(std::marker::PhantomData<(T, U)>);

#[cfg(feature = "link")]
impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

#[cfg(feature = "link")]
impl<T, U> tonic::codec::Codec for SmallBuffers<T, U>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = tonic_prost::ProstEncoder<T>;
    type Decoder = tonic_prost::ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        tonic_prost::ProstEncoder::new(small())
    }

    fn decoder(&mut self) -> Self::Decoder {
        tonic_prost::ProstDecoder::new(small())
    }
}

/// Bytes of a buffer that is empty, and from which on what is encoded is sent.
#[cfg(feature = "link")]
fn small() -> tonic::codec::BufferSettings {
    tonic::codec::BufferSettings::new(256, 32 << 10)
}

/// Bytes of a heartbeat's JSON, at most.
pub const MAX_HEARTBEAT: usize = 256 << 10;

/// A heartbeat's JSON as it travels: a tenth of its size, so that ten thousand streams need no
/// buffers for the whole of it.
#[cfg(feature = "link")]
#[must_use]
pub fn heartbeat_pack(json: &[u8]) -> bytes::Bytes {
    use std::io::Write;
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    // Writing to memory does not fail; plain JSON is understood as well.
    match packed.write_all(json).and_then(|()| packed.finish()) {
        Ok(packed) => packed.into(),
        Err(_) => bytes::Bytes::copy_from_slice(json),
    }
}

/// The JSON of a heartbeat that came. Nothing when it is damaged, or more than [`MAX_HEARTBEAT`].
#[cfg(feature = "link")]
#[must_use]
pub fn heartbeat_unpack(came: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    use std::io::Read;
    if came.first() != Some(&0x78) {
        return (came.len() <= MAX_HEARTBEAT).then_some(came.into());
    }
    // Not 16 KiB: a stream's write buffer has them, of which it touches the first few hundred bytes.
    // In a piece of memory that was full of a heartbeat before, all of them would stay resident.
    let mut json = Vec::with_capacity(20 << 10);
    let mut unpacked = flate2::read::ZlibDecoder::new(came).take(MAX_HEARTBEAT as u64 + 1);
    unpacked.read_to_end(&mut json).ok()?;
    (json.len() <= MAX_HEARTBEAT).then_some(json.into())
}

/// Events in one message, at most.
pub const MOST_EVENTS: usize = 512;
/// Bytes of one message, at most, in either direction.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Bytes of a file in one message.
pub const CHUNK: usize = 256 << 10;

/// Bytes of a terminal in one message.
pub const SHELL_PART: usize = 16 << 10;
/// Bytes of a terminal, in either direction, that are sent before the other side has said that it
/// took those before them.
pub const SHELL_WINDOW: u64 = 64 << 10;

/// What a host says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its name.
    pub host: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Kernel release.
    pub kernel: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub system: String,
    /// Machine, e.g. `x86_64`.
    pub architecture: String,
    /// Its addresses, without loopback.
    pub addresses: Vec<String>,
    /// The agent's version.
    pub version: String,
}

/// How one capability stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapabilityState {
    /// It was seen to work.
    Ok,
    /// It does not work, or was not seen to.
    Red,
    /// Switched off by config or policy.
    Off,
}

/// One capability of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Its name, e.g. `on access: /srv`.
    pub name: String,
    /// How it stands.
    pub state: CapabilityState,
    /// What was seen.
    pub evidence: String,
    /// When it was seen, milliseconds since the epoch.
    pub time_ms: i64,
}

/// A sign of life, and of sight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it was made, milliseconds since the epoch.
    pub time_ms: i64,
    /// Each capability.
    pub capabilities: Vec<Capability>,
    /// The numbers.
    pub status: StatusReport,
    /// What waits to be sent.
    pub outbox: OutboxState,
    /// How the shipped detection models stand here: in the first of a stream, and when something of
    /// it has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<ModelReach>>,
}

/// How a shipped detection model stands on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelReach {
    /// Its Sigma id.
    pub id: Uuid,
    /// On.
    pub enabled: bool,
    /// Which fact is missing for it to fire there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// The events that the manager does not have yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxState {
    /// How many wait.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest one's age, seconds.
    pub oldest_s: u64,
    /// How many were given up for want of room or for age, since the agent was enrolled.
    pub dropped: u64,
}

#[cfg(all(test, feature = "link"))]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_comes_as_it_went_and_a_bomb_does_not() {
        let json = br#"{"name":"on access"}"#.repeat(800);
        let packed = heartbeat_pack(&json);
        assert!(packed.len() < json.len() / 8, "{}", packed.len());
        assert_eq!(heartbeat_unpack(&packed).as_deref(), Some(&json[..]));
        assert_eq!(heartbeat_unpack(&json).as_deref(), Some(&json[..]), "plain");
        assert_eq!(heartbeat_unpack(&packed[..packed.len() / 2]), None, "cut");
        assert_eq!(heartbeat_unpack(b"\x78"), None);
        let bomb = heartbeat_pack(&vec![b' '; MAX_HEARTBEAT + 1]);
        assert!(bomb.len() < 10_000);
        assert_eq!(heartbeat_unpack(&bomb), None);
        let largest = heartbeat_pack(&vec![b' '; MAX_HEARTBEAT]);
        assert_eq!(heartbeat_unpack(&largest).map(|json| json.len()), Some(MAX_HEARTBEAT));
        assert_eq!(heartbeat_unpack(&vec![b' '; MAX_HEARTBEAT + 1]), None);
    }
}
