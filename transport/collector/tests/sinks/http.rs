//! A minimal HTTP/1.1 server: requests with Content-Length, answers with a status and a body.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request.
pub(crate) struct Request {
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// The answer of a simulated receiver.
pub(crate) enum Reply {
    Body(u16, String),
    /// The connection is closed without an answer.
    Cut,
}

/// Starts a server on a loopback port, which runs until the process ends.
pub(crate) fn serve<S: Send + 'static>(
    state: S,
    answer: impl Fn(&mut S, &Request) -> Reply + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<S>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(state));
    let (shared, answer) = (Arc::clone(&state), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (shared, answer) = (Arc::clone(&shared), Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some(request) = read(&mut reader) {
                    let reply = answer(&mut shared.lock().unwrap(), &request);
                    if !write(&stream, reply) {
                        break;
                    }
                }
            });
        }
    });
    (address, state)
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    assert_eq!(words.next().filter(|word| !word.is_empty())?, "POST");
    let target = words.next()?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut request = Request { target, headers, body: Vec::new() };
    let len: usize = request.header("content-length").expect("a request has its length").parse().ok()?;
    request.body = vec![0; len];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn write(mut stream: &TcpStream, reply: Reply) -> bool {
    match reply {
        Reply::Body(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).is_ok()
        }
        Reply::Cut => false,
    }
}
