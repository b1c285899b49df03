//! What `just bench` calls native hyper: a server in the shape of wrun, without wasm. One process forks workers that share
//! its listening socket and serve HTTP/1.1 with hyper on one thread each; one that dies is replaced.
//!
//! Usage: bench_hyper WORKERS

#[expect(unreachable_pub, reason = "the guest takes it from a library")]
#[path = "../../guests/p2/src/toil.rs"]
mod toil;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, Pid, fork};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A piece of a streamed body.
static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// What is answered: whole or streamed.
type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

fn main() -> io::Result<()> {
    let workers: usize = std::env::args()
        .nth(1)
        .and_then(|workers| workers.parse().ok())
        .ok_or_else(|| io::Error::other("usage: bench_hyper WORKERS"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    // As wrun does it: with a worker for each core, each has its own.
    let cores = std::thread::available_parallelism()?.get();
    let core = |worker| (workers == cores).then_some(worker);
    let mut pids = HashMap::new();
    for worker in 0..workers {
        pids.insert(start(&listener, core(worker))?, worker);
    }
    println!("listening on http://{}/", listener.local_addr()?);
    loop {
        let ended = wait()?.pid().and_then(|pid| pids.remove(&pid));
        if let Some(worker) = ended {
            pids.insert(start(&listener, core(worker))?, worker);
        }
    }
}

/// Forks a worker.
fn start(listener: &TcpListener, core: Option<usize>) -> io::Result<Pid> {
    // SAFETY: this process never starts a thread, so the child inherits no lock that another one holds.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let end = work(listener, core);
            eprintln!("a worker ended: {end:?}");
            std::process::exit(1);
        }
    }
}

fn work(listener: &TcpListener, core: Option<usize>) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &set)?;
    }
    let listener = listener.try_clone()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            tokio::spawn(async {
                // A client that goes away is nobody's mistake.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service_fn(answer))
                    .await;
            });
            // Other workers get their turn before the next.
            tokio::task::yield_now().await;
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let query = request.uri().query().unwrap_or_default();
    let number = query.split_once('=').and_then(|(_, it)| it.parse().ok());
    let number: u32 = number.unwrap_or(0);
    Ok(match request.uri().path() {
        "/" => text("Hello from hyper!\n"),
        "/echo" => Response::new(request.into_body().boxed_unsync()),
        "/stream" => Response::new(
            Stream {
                left: number as usize,
            }
            .boxed_unsync(),
        ),
        "/toil" => text(format!("{}\n", toil::toil(number))),
        "/spin" => {
            spin(Duration::from_millis(number.into()));
            text("spun\n")
        }
        _ => {
            let mut answer = text("not found\n");
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
            answer
        }
    })
}

fn text(body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain"),
    );
    answer
}

fn spin(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// A body of so many bytes, its length not told beforehand.
struct Stream {
    left: usize,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let len = self.left.min(PIECE.len());
        self.left -= len;
        Poll::Ready((len > 0).then(|| Ok(Frame::data(Bytes::from_static(&PIECE[..len])))))
    }
}
