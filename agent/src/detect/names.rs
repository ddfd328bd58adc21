//! Names of addresses, from the DNS answers that the sensor saw.
//!
//! Bounded: [`MOST`] addresses, each forgotten after [`KEPT`]. An answer is what some server
//! said, no proof; it serves rules that look for a host name and nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::event::NetworkEvent;

/// Addresses remembered; when there are more, those of the older half are forgotten.
const MOST: usize = 4096;
/// Programs keep an answer far beyond its time to live.
const KEPT: Duration = Duration::from_secs(3600);

/// The table.
#[derive(Debug, Default)]
pub struct Names(Mutex<HashMap<String, (String, Instant)>>);

impl Names {
    /// Takes an answer in.
    pub fn learn(&self, answer: &NetworkEvent, now: Instant) {
        if answer.dns_name.is_empty() {
            return;
        }
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for address in &answer.dns_answers {
            if address.parse::<std::net::IpAddr>().is_err() {
                continue;
            }
            if names.len() >= MOST {
                make_room(&mut names, now);
            }
            names.insert(address.clone(), (answer.dns_name.clone(), now));
        }
    }

    /// The name that last stood for this address.
    pub fn of(&self, address: &str) -> Option<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(address).filter(|(_, at)| at.elapsed() < KEPT).map(|(name, _)| name.clone())
    }
}

fn make_room(names: &mut HashMap<String, (String, Instant)>, now: Instant) {
    names.retain(|_, (_, at)| now.duration_since(*at) < KEPT);
    if names.len() >= MOST {
        let mut times: Vec<_> = names.values().map(|(_, at)| *at).collect();
        let middle = times.len() / 2;
        let (_, oldest_kept, _) = times.select_nth_unstable(middle);
        let oldest_kept = *oldest_kept;
        let before = names.len();
        names.retain(|_, (_, at)| *at > oldest_kept);
        if names.len() == before {
            names.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_answers_does_not_grow_the_table_and_keeps_the_newest() {
        let names = Names::default();
        let start = Instant::now();
        for number in 0..20_000u64 {
            let answer = NetworkEvent {
                process: Default::default(),
                parents: Vec::new(),
                action: "dns_answer".to_owned(),
                protocol: "udp".to_owned(),
                local_address: String::new(),
                local_port: 0,
                remote_address: String::new(),
                remote_port: 0,
                dns_name: format!("host{number}.example"),
                dns_type: "A".to_owned(),
                dns_answers: vec![
                    format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255),
                    "cname.example".to_owned(),
                ],
                count: 1,
            };
            names.learn(&answer, start + Duration::from_micros(number));
        }
        assert!(names.0.lock().expect("not poisoned").len() <= MOST);
        assert_eq!(names.of("10.0.78.31").as_deref(), Some("host19999.example"));
        assert_eq!(names.of("cname.example"), None);
        assert_eq!(names.of("10.0.0.1"), None);
    }
}
