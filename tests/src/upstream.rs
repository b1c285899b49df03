//! A small HTTP server that guests send requests to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Answers every request with what was asked for; runs until the test process ends.
#[derive(Debug)]
pub struct Upstream {
    addr: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Upstream {
    /// Starts one on a free port.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::Relaxed);
                // A client that went away is not this server's concern.
                thread::spawn(move || answer(&stream));
            }
        });
        Self { addr, requests }
    }

    /// Returns its URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Returns how many connections it has taken.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Answers `you asked for TARGET`, or redirects `/elsewhere`, or does what no good server does.
fn answer(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    match target {
        "/silent" => return silence(stream),
        "/forever" => return forever(stream),
        "/many-fields" => return stream.write_all(&head_of(100_000, 10)),
        "/drip" => return drip(stream),
        "/stall" => return stall(stream),
        "/take" => return take(stream),
        "/long-field" => return stream.write_all(&head_of(1, 10 << 20)),
        _ => {}
    }
    let body = format!("you asked for {target}");
    let head = match target {
        "/elsewhere" => "302 Found\r\nlocation: http://127.0.0.1:1/",
        "/encoded" => "200 OK\r\ncontent-encoding: gzip",
        _ => "200 OK",
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// Says nothing until the client goes away.
fn silence(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// Sends a body until the client goes away.
fn forever(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
    loop {
        stream.write_all(&[b'x'; 64 << 10])?;
    }
}

/// Sends a body byte by byte until the client goes away.
fn drip(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
    loop {
        stream.write_all(b"x")?;
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends the beginning of a body and then nothing until the client goes away.
fn stall(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nx")?;
    silence(stream)
}

/// Reads until the client has sent all or goes away, and answers then.
fn take(mut stream: &TcpStream) -> std::io::Result<()> {
    let (mut piece, mut read) = ([0; 4096], Vec::new());
    while !read.ends_with(b"0\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => break,
            len => read.extend_from_slice(&piece[..len]),
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

/// Returns the head of an answer with `count` fields of `size` bytes.
fn head_of(count: usize, size: usize) -> Vec<u8> {
    let value = "v".repeat(size);
    let fields: String = (0..count)
        .map(|number| format!("x-{number}: {value}\r\n"))
        .collect();
    format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n").into_bytes()
}
