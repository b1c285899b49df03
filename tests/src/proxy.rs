//! What lies between a server and an engine that it uses over TCP: a proxy that can be slow, say nothing, cut connections, and
//! lose the answers to commits.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often who waits looks again.
const LOOK: Duration = Duration::from_millis(5);

/// How it is between the two.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Weather {
    /// As if nothing were between them.
    #[default]
    Fair,
    /// Whatever is sent arrives so much later.
    Slow(Duration),
    /// Nothing arrives, and nobody is told; later it goes on.
    Silent,
    /// Connections break, and new ones do, too.
    Cut,
    /// Of so many commits the answer to one is lost, with its connection; what was committed is.
    LosesCommits(usize),
}

/// A proxy to a port of this machine. Ended, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    sky: Arc<Sky>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Sky(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    weather: Weather,
    commits: usize,
    lost: usize,
    is_over: bool,
    open: Vec<TcpStream>,
}

impl Proxy {
    /// Starts one to `port`.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let sky = Arc::new(Sky::default());
        let acceptor = thread::spawn({
            let sky = Arc::clone(&sky);
            move || accept(&listener, port, &sky)
        });
        Self {
            port: own,
            sky,
            acceptor: Some(acceptor),
        }
    }

    /// Returns the port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the weather.
    pub fn be(&self, weather: Weather) {
        let mut state = self.sky.state();
        state.weather = weather;
        if weather == Weather::Cut {
            end(&mut state);
        }
    }

    /// Returns how many commits it has lost the answers to.
    pub fn lost(&self) -> usize {
        self.sky.state().lost
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.sky.state();
        state.is_over = true;
        end(&mut state);
        drop(state);
        // It waits for a connection.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Sky {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what was sent may arrive.
    fn delay(&self) {
        if let Weather::Slow(by) = self.state().weather {
            thread::sleep(by);
        }
        loop {
            let state = self.state();
            if state.weather != Weather::Silent || state.is_over {
                return;
            }
            drop(state);
            thread::sleep(LOOK);
        }
    }

    /// Tells whether the answer to these bytes is to be lost.
    fn loses_answer(&self, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let Weather::LosesCommits(every) = state.weather else {
            return false;
        };
        if !bytes.windows(6).any(|word| word == b"COMMIT") {
            return false;
        }
        state.commits += 1;
        let loses = state.commits.is_multiple_of(every);
        state.lost += usize::from(loses);
        loses
    }
}

fn end(state: &mut State) {
    for socket in state.open.drain(..) {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, port: u16, sky: &Arc<Sky>) {
    while let Ok((client, _)) = listener.accept() {
        let mut state = sky.state();
        if state.is_over {
            return;
        }
        if state.weather == Weather::Cut {
            continue;
        }
        let Ok(engine) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
            continue;
        };
        for socket in [&client, &engine] {
            let _ = socket.set_nodelay(true);
            state.open.extend(socket.try_clone());
        }
        drop(state);
        connect(client, engine, sky);
    }
}

/// Passes on what comes from either side. Each way is a thread, which ends with the connection.
fn connect(client: TcpStream, engine: TcpStream, sky: &Arc<Sky>) {
    let (to_client, to_engine) = (client.try_clone(), engine.try_clone());
    let (Ok(to_client), Ok(to_engine)) = (to_client, to_engine) else {
        return;
    };
    let doomed = Arc::new(AtomicBool::new(false));
    let is_doomed = Arc::clone(&doomed);
    let (there, back) = (Arc::clone(sky), Arc::clone(sky));
    thread::spawn(move || {
        pass_on(&client, &to_engine, |bytes| {
            there.delay();
            if there.loses_answer(bytes) {
                doomed.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    thread::spawn(move || {
        pass_on(&engine, &to_client, |_| {
            back.delay();
            !is_doomed.load(Ordering::SeqCst)
        });
    });
}

/// Passes bytes on for as long as `goes_on`, and ends both sides then.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream, mut goes_on: impl FnMut(&[u8]) -> bool) {
    let mut bytes = [0; 16 << 10];
    loop {
        match from.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(length) if length > 0 && goes_on(&bytes[..length]) => {
                if to.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    for socket in [from, to] {
        let _ = socket.shutdown(Shutdown::Both);
    }
}
