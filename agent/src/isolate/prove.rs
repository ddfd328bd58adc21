//! Proves the way to the manager while the host is cut off: a TCP connection to an endpoint.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Longest proof.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Connects to all endpoints at once; the first that answers proves the way.
///
/// # Errors
/// Why none answered within [`LIMIT`], one clause for each.
pub(super) fn reach(endpoints: &[SocketAddr]) -> Result<SocketAddr, String> {
    let end = Instant::now() + LIMIT;
    let (answer, answers) = channel();
    let mut waiting = 0;
    let mut failures = Vec::new();
    for endpoint in endpoints {
        let (endpoint, answer) = (*endpoint, answer.clone());
        let connect = move || {
            let connected = TcpStream::connect_timeout(&endpoint, LIMIT);
            // Nobody waits any more once one has answered.
            let _ = answer.send((endpoint, connected.map(drop)));
        };
        match std::thread::Builder::new().name("prove".to_owned()).spawn(connect) {
            Ok(_) => waiting += 1,
            Err(error) => failures.push(format!("{endpoint}: {error}")),
        }
    }
    while waiting > 0 {
        match answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((endpoint, Ok(()))) => return Ok(endpoint),
            Ok((endpoint, Err(error))) => failures.push(format!("{endpoint}: {error}")),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
        waiting -= 1;
    }
    if waiting > 0 {
        failures.push(format!("no answer within {} s", LIMIT.as_secs()));
    }
    Err(failures.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_that_answers_is_enough() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let open = listener.local_addr().expect("address");
        let closed: SocketAddr = "127.0.0.1:1".parse().expect("address");
        assert_eq!(reach(&[closed, open]), Ok(open));
        let error = reach(&[closed]).expect_err("nobody listens");
        assert!(error.contains("127.0.0.1:1: "), "{error}");
        assert!(reach(&[]).is_err());
    }
}
