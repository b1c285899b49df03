//! A control for `http_table`: a small HTTP server that takes whatever it gets, as servers once did. Lines may end in LF,
//! fields may be folded or misspelt, the first length counts, and nothing is ever refused.

use crate::http_table::Subject;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The server; runs until the test process ends.
#[derive(Debug)]
pub struct Lenient {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Lenient {
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
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = Arc::clone(&all);
                // A client that went away is not this server's concern.
                thread::spawn(move || serve(&stream, &all));
            }
        });
        Self { addr, seen }
    }
}

impl Subject for Lenient {
    fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.seen))
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(30)
    }
}

fn lock(seen: &Mutex<Vec<String>>) -> std::sync::MutexGuard<'_, Vec<String>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: &TcpStream, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut from = BufReader::new(stream);
    loop {
        let request = line(&mut from)?;
        let (mut host, mut length, mut chunked) = (String::new(), None, false);
        loop {
            let field = line(&mut from)?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(':').unwrap_or((&field, ""));
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "host" => value.clone_into(&mut host),
                "content-length" => length = length.or(value.parse().ok()),
                "transfer-encoding" => chunked = value.contains("chunked"),
                _ => {}
            }
        }
        let body = match length {
            Some(length) => whole(&mut from, length)?,
            None if chunked => chunks(&mut from)?,
            None => Vec::new(),
        };
        let mut words = request.split_whitespace();
        let (method, target) = (words.next().unwrap_or("GET"), words.next().unwrap_or("/"));
        let body = format!("{} {}", body.len(), String::from_utf8_lossy(&body));
        let saw = format!("{method} {target} {host} {}", body.trim_end());
        lock(seen).push(saw);
        stream.write_all(b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 0\r\n\r\n")?;
    }
}

fn line(from: &mut BufReader<&TcpStream>) -> io::Result<String> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn whole(from: &mut BufReader<&TcpStream>, length: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    from.take(length).read_to_end(&mut body)?;
    Ok(body)
}

fn chunks(from: &mut BufReader<&TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(from)?;
        let digits = size.trim().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(digits, 16).unwrap_or(0);
        body.extend(whole(from, size)?);
        line(from)?;
        if size == 0 {
            return Ok(body);
        }
    }
}
