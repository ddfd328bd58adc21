//! A web server for the one file that a demonstration downloads; a lab may have no internet.
//!
//! Listens on the loopback alone, answers GET from memory, one connection at a time. The test file
//! is put together here from halves, so that neither this source nor xtask's binary holds it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Context;

/// The first half of the EICAR test string.
const FIRST: &str = r"X5O!P%@AP[4\PZX54(P^)7CC)7}$";

/// The second half, backwards: the linker may put the two side by side.
const SECOND: &str = "*H+H$!ELIF-TSET-SURIVITNA-DRADNATS-RACIE";

/// Longest request head that is read.
const MAX_HEAD: u64 = 8192;

/// Serve in a thread of its own until the process ends. Returns the address.
pub(super) fn serve() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on the loopback")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // A caller that breaks off has nothing to be told.
            let _ = answer(connection);
        }
    });
    Ok(address)
}

fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut head = BufReader::new((&connection).take(MAX_HEAD));
    let mut request = String::new();
    head.read_line(&mut request)?;
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    connection.write_all(&respond(&request))
}

/// The whole answer to a request line.
fn respond(request: &str) -> Vec<u8> {
    let mut words = request.split_whitespace();
    let (status, kind, body) = match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some("/eicar.com")) => (
            "200 OK",
            "application/octet-stream",
            FIRST.chars().chain(SECOND.chars().rev()).collect(),
        ),
        (Some("GET" | "HEAD"), Some("/")) => ("200 OK", "text/plain", "/eicar.com\n".to_owned()),
        _ => ("404 Not Found", "text/plain", "not here\n".to_owned()),
    };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !request.starts_with("HEAD") {
        answer.push_str(&body);
    }
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_file_has_its_68_bytes() {
        let answer = respond("GET /eicar.com HTTP/1.1\r\n");
        let text = String::from_utf8(answer).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body.len(), 68);
        assert!(head.contains("Content-Length: 68"));
    }

    #[test]
    fn anything_else_is_not_found() {
        for request in ["", "GET", "POST /eicar.com HTTP/1.1", "GET /../eicar.com HTTP/1.1"] {
            assert!(respond(request).starts_with(b"HTTP/1.1 404"), "{request}");
        }
    }
}
