//! One alert as it is told, and what was seen.

use holdfast_common::event::{Event, EventBody, MalwareDetection, ModelDetection};
use holdfast_common::process::ProcessInfo;
use serde_json::Value;
use uuid::Uuid;

/// One alert, as it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The alert.
    pub alert: Uuid,
    /// Name of its host.
    pub host: String,
    /// The host's addresses.
    pub addresses: Vec<String>,
    /// The alert's kind.
    pub kind: String,
    /// Its model: a model's id, a signature's name, a capability.
    pub model: String,
    /// Its title.
    pub title: String,
    /// Its level.
    pub level: String,
    /// ATT&CK technique ids.
    pub attack: Vec<String>,
    /// Simulations alone made it.
    pub simulated: bool,
    /// Detections since the message before.
    pub count: i64,
    /// The first one's time, milliseconds since the epoch.
    pub first_ms: i64,
    /// The last one's.
    pub last_ms: i64,
    /// What was seen last.
    pub evidence: Evidence,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// An event.
    Event(Box<Event>),
    /// What a manager noted itself, or a newer agent's event.
    Other(Value),
    /// Left out, since the message is large already.
    LeftOut,
}

impl Evidence {
    /// Of an alert's JSON.
    #[must_use]
    pub fn of_json(json: &str) -> Self {
        match serde_json::from_str(json) {
            Ok(event) => Self::Event(Box::new(event)),
            Err(_) => Self::Other(serde_json::from_str(json).unwrap_or(Value::Null)),
        }
    }

    /// The malware detection that it is.
    #[must_use]
    pub fn malware(&self) -> Option<&MalwareDetection> {
        match self {
            Self::Event(event) => match &event.body {
                EventBody::Malware(malware) => Some(malware),
                _ => None,
            },
            Self::Other(_) | Self::LeftOut => None,
        }
    }

    /// The model's detection that it is.
    #[must_use]
    pub fn model(&self) -> Option<&ModelDetection> {
        match self {
            Self::Event(event) => match &event.body {
                EventBody::Model(model) => Some(model),
                _ => None,
            },
            Self::Other(_) | Self::LeftOut => None,
        }
    }

    /// The process that did it, and its ancestors.
    #[must_use]
    pub fn process(&self) -> Option<(&ProcessInfo, &[ProcessInfo])> {
        let Self::Event(event) = self else { return None };
        match &event.body {
            EventBody::Malware(malware) => Some((malware.process.as_ref()?, &malware.parents)),
            EventBody::Model(model) => Some((&model.process, &model.parents)),
            EventBody::Tampering(one) => Some((one.process.as_ref()?, &one.parents)),
            _ => None,
        }
    }
}
