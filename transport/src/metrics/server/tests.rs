//! Real requests over TCP, good ones and hostile ones.

use super::{CONNECTIONS_MAX, HEAD_LEN_MAX, Refusal, Server, TRANSFER_TIME, route};
use proptest::prelude::{Strategy, any, proptest};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LOOPBACK: &str = "127.0.0.1:0";

fn server() -> Server {
    Server::start(LOOPBACK.parse().unwrap(), Arc::new(|| "a_total 1\n".into())).unwrap()
}

fn exchange(addr: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(request).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn metrics_are_rendered_for_each_scrape() {
    let scrapes = AtomicU64::new(0);
    let render = move || format!("scrapes_total {}\n", scrapes.fetch_add(1, Ordering::Relaxed));
    let server = Server::start(LOOPBACK.parse().unwrap(), Arc::new(render)).unwrap();
    for number in 0..3 {
        let response =
            exchange(server.local_addr(), b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
        assert_eq!(
            response,
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
                 Content-Length: 16\r\nConnection: close\r\n\r\nscrapes_total {number}\n"
            )
        );
    }
}

#[test]
fn everything_else_is_refused() {
    let server = server();
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(HEAD_LEN_MAX));
    let endless = "x".repeat(4 * HEAD_LEN_MAX);
    let rows: [(&str, &[u8], &str); 13] = [
        ("with a query", b"GET /metrics?a=b HTTP/1.0\r\n\r\n", "200"),
        ("another path", b"GET / HTTP/1.1\r\n\r\n", "404"),
        ("a longer path", b"GET /metrics/x HTTP/1.1\r\n\r\n", "404"),
        ("another method", b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("method of another path", b"DELETE /x HTTP/1.1\r\n\r\n", "404"),
        ("no version", b"GET /metrics\r\n\r\n", "400"),
        ("a later version", b"GET /metrics HTTP/2.0\r\n\r\n", "400"),
        ("two spaces", b"GET  /metrics HTTP/1.1\r\n\r\n", "400"),
        ("nothing", b"\r\n\r\n", "400"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"),
        ("small letters", b"get /metrics HTTP/1.1\r\n\r\n", "400"),
        ("head too long", long.as_bytes(), "431"),
        ("head without end", endless.as_bytes(), "431"),
    ];
    for (name, request, status) in rows {
        let response = exchange(server.local_addr(), request);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {response}");
        assert_eq!(response.contains("\r\nAllow: GET\r\n"), status == "405", "{name}: {response}");
        assert_eq!(response.contains("a_total 1"), status == "200", "{name}: {response}");
    }
}

#[test]
fn the_longest_head_is_read() {
    let server = server();
    let mut request = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
    request.resize(HEAD_LEN_MAX, b'x');
    request.extend_from_slice(b"\r\n\r\n");
    assert!(exchange(server.local_addr(), &request).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_request_may_come_in_pieces() {
    let server = server();
    let mut stream = TcpStream::connect(server.local_addr()).unwrap();
    for piece in ["GET /met", "rics HTTP/1.1\r", "\n\r", "\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

#[test]
fn a_client_that_gives_up_is_told_so() {
    let server = server();
    let mut stream = TcpStream::connect(server.local_addr()).unwrap();
    stream.write_all(b"GET /metr").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(exchange(server.local_addr(), b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_trickle_meets_the_deadline() {
    let server = server();
    let start = Instant::now();
    let mut slow = TcpStream::connect(server.local_addr()).unwrap();
    let mut trickle = slow.try_clone().unwrap();
    // Each byte comes before any single read would time out.
    let sender = std::thread::spawn(move || {
        while start.elapsed() < 3 * TRANSFER_TIME && trickle.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut status = [0; 12];
    slow.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
    // The next client waits for the slow one, but not long.
    let response = exchange(server.local_addr(), b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(start.elapsed() >= TRANSFER_TIME && start.elapsed() < 3 * TRANSFER_TIME, "{:?}", start.elapsed());
    drop(slow);
    sender.join().unwrap();
}

/// More clients than there are places, none of which sends its request.
#[test]
fn silent_clients_keep_nobody_waiting() {
    let server = server();
    let connect = |_| TcpStream::connect(server.local_addr()).unwrap();
    let mut silent: Vec<_> = (0..3 * CONNECTIONS_MAX).map(connect).collect();
    let response = exchange(server.local_addr(), b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    // The oldest one had to go for it, the newest one still has its time.
    let mut answer = String::new();
    silent[0].read_to_string(&mut answer).unwrap_or_default();
    assert_eq!(answer, "", "closed, and not told that its time is up");
    silent.last_mut().unwrap().write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
}

#[test]
fn a_stop_does_not_wait_for_a_silent_client() {
    let server = server();
    let mut silent = TcpStream::connect(server.local_addr()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    silent.set_read_timeout(Some(TRANSFER_TIME)).unwrap();
    let start = Instant::now();
    drop(server);
    assert!(start.elapsed() < TRANSFER_TIME, "{:?}", start.elapsed());
    // The thread has let go of the connection.
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_panic_in_the_counting_does_not_end_the_server() {
    let first = AtomicU64::new(0);
    let render = move || {
        assert!(first.fetch_add(1, Ordering::Relaxed) > 0, "the first scrape fails");
        String::new()
    };
    let server = Server::start(LOOPBACK.parse().unwrap(), Arc::new(render)).unwrap();
    for status in ["500", "200"] {
        let response = exchange(server.local_addr(), b"GET /metrics HTTP/1.1\r\n\r\n");
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    }
}

#[test]
fn other_interfaces_are_refused() {
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9477", "[::ffff:192.0.2.1]:1"] {
        let error = Server::start(addr.parse().unwrap(), Arc::new(String::new)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{addr}");
        assert!(error.to_string().contains("loopback"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_head_is_routed_or_refused(head in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = route(&head);
    }

    #[test]
    fn only_the_metrics_are_served(path in "/[a-z/]{0,9}".prop_filter("others", |path| path != "/metrics")) {
        assert_eq!(route(format!("GET {path} HTTP/1.1").as_bytes()), Err(Refusal::NotFound));
    }
}
