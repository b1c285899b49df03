//! `wrun dev`: serves a project while it is being written, and builds it again whenever a file changes.
//!
//! Opens the address itself and passes it on to a `wrun serve` of its own, so that it stays open whatever becomes of that
//! process. Building and reloading is that one's work; here is decided when, and who is told how it went.

mod fault;
mod output;
mod roots;
mod server;
mod stand_in;
mod watch;

use crate::config::{Config, DEFAULT_ADDR, ServeArgs, Source};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::ipc::ControlReply;
use crate::listener::Listener;
use crate::log;
use fault::Fault;
use nix::sys::signal::{SigSet, Signal};
use output::Output;
use roots::Roots;
use server::Server;
use stand_in::StandIn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use watch::Watch;

/// Serves until told to stop.
pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    // Before any other thread is there that would take the signals.
    let signals = signals().or_fail(ExitCode::System, || {
        "cannot take charge of signals".to_owned()
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_fail(ExitCode::System, || {
            "cannot start the event loop".to_owned()
        })?;
    runtime.block_on(serve(args, signals))
}

/// Returns a message for each signal that asks for the end.
fn signals() -> io::Result<UnboundedReceiver<()>> {
    let mask: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    mask.thread_block()?;
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || while mask.wait().is_ok() && sender.send(()).is_ok() {});
    Ok(receiver)
}

async fn serve(args: &ServeArgs, mut signals: UnboundedReceiver<()>) -> Result<ExitCode, Failure> {
    let mut dev = Dev::open(args)?;
    let result = tokio::select! {
        result = dev.go_on() => result,
        _ = signals.recv() => Ok(ExitCode::Ok),
    };
    if let Some(server) = &mut dev.server {
        server.terminate();
        // Each further signal is passed on: the second one ends a server at once.
        while tokio::select! {
            _ = server.ended() => false,
            _ = signals.recv() => true,
        } {
            server.terminate();
        }
    }
    result
}

struct Dev<'a> {
    args: &'a ServeArgs,
    /// The addresses that `listeners` were opened for.
    addrs: Vec<SocketAddr>,
    listeners: Vec<Listener>,
    output: Arc<Output>,
    watch: Watch,
    /// `None` while there is no good version.
    server: Option<Server>,
    /// Answers in its place.
    stand_in: Option<StandIn>,
}

impl<'a> Dev<'a> {
    fn open(args: &'a ServeArgs) -> Result<Self, Failure> {
        let addrs = match Config::load(args) {
            Ok(config) => config.addrs,
            // What is wrong will be said in a moment, and to browsers, too.
            Err(_) if args.addr.is_empty() => vec![DEFAULT_ADDR.parse().expect("a constant")],
            Err(_) => args.addr.clone(),
        };
        let mut dev = Self {
            args,
            addrs: Vec::new(),
            listeners: Vec::new(),
            output: Output::open()?,
            watch: Watch::new()?,
            server: None,
            stand_in: None,
        };
        dev.listen(addrs)?;
        Ok(dev)
    }

    fn listen(&mut self, addrs: Vec<SocketAddr>) -> Result<(), Failure> {
        self.listeners = addrs
            .iter()
            .map(|&addr| Listener::bind(addr))
            .collect::<Result<_, _>>()?;
        self.addrs = addrs;
        let urls: Vec<String> = self.listeners.iter().map(Listener::url).collect();
        log::announce(&format!("wrun: listening on {}", urls.join(" ")));
        Ok(())
    }

    /// Builds and serves, again and again, until the server was stopped.
    async fn go_on(&mut self) -> Result<ExitCode, Failure> {
        loop {
            self.renew().await?;
            let server = self.server.as_mut();
            let server_ended = async {
                match server {
                    Some(server) => server.ended().await,
                    None => std::future::pending().await,
                }
            };
            let status = tokio::select! {
                changed = self.watch.changed() => {
                    changed?;
                    continue;
                }
                status = server_ended => status,
            };
            self.server = None;
            if status.is_ok_and(|status| status.success()) {
                // By `wrun stop`, or a signal of its own.
                return Ok(ExitCode::Ok);
            }
            log::announce("wrun: the server ended unasked, it is started again");
        }
    }

    /// Builds what there is now and serves it, or says and shows why not.
    async fn renew(&mut self) -> Result<(), Failure> {
        // Who asks now is answered by what is about to be built.
        self.stand_in = None;
        self.output.forget();
        let config = Config::load(self.args);
        self.watch
            .follow(Roots::of(self.args, config.as_ref().ok()))?;
        let package = match &config {
            Ok(Config {
                source: Source::Package(folder),
                ..
            }) => Some(folder.clone()),
            _ => None,
        };
        let (doing, done, failed) = match package {
            Some(_) => ("building", "built", "build failed"),
            None => ("loading", "loaded", "loading failed"),
        };
        log::announce(&format!("wrun: {doing}"));
        let started = Instant::now();
        let is_first = self.server.is_none();
        let result = match config {
            Ok(config) => self.load(config).await,
            Err(failure) => Err(failure),
        };
        self.output.take();
        match result {
            Ok(()) => {
                let seconds = started.elapsed().as_secs_f64();
                let now = if is_first { "serving" } else { "reloaded" };
                log::announce(&format!("wrun: {done} in {seconds:.1} s, {now}"));
            }
            Err(failure) => self.show(failure, failed).await?,
        }
        if let Some(server) = &self.server
            && !server.listens().await
        {
            // Otherwise clients would wait for an answer that never comes.
            let why = "the component handles messages alone";
            let fault = Fault {
                failure: Failure::new(ExitCode::Unavailable, why),
                output: String::new(),
                meanwhile: "It handles them while this page is shown.",
            };
            self.stand_in = Some(StandIn::start(&self.listeners, fault)?);
        }
        self.watch.settle_build(package.as_deref())
    }

    /// Has the server load what there is now.
    async fn load(&mut self, config: Config) -> Result<(), Failure> {
        let mut reply = None;
        if let Some(server) = &mut self.server {
            reply = server.reload().await;
            if reply.is_none() {
                let _ = server.ended().await;
                self.server = None;
            }
        }
        if self.server.is_none() {
            if config.addrs != self.addrs {
                self.listen(config.addrs)?;
            }
            let server = Server::start(&self.listeners, &self.output)?;
            reply = self.server.insert(server).answer().await;
            if !matches!(reply, Some(ControlReply::Reloaded { .. })) {
                // It ends by itself.
                if let Some(mut server) = self.server.take() {
                    let _ = server.ended().await;
                }
            }
        }
        match reply {
            Some(ControlReply::Reloaded { .. }) => Ok(()),
            Some(ControlReply::Failed(failure)) => Err(failure),
            _ => Err(
                Failure::new(ExitCode::Internal, "the server ended before it served")
                    .hint("the log above may say why; any change of a file starts it again"),
            ),
        }
    }

    /// Says what went wrong, and has browsers shown it.
    async fn show(&mut self, failure: Failure, what: &str) -> Result<(), Failure> {
        log::announce(&format!("wrun: {failure}"));
        if let Some(hint) = &failure.hint {
            log::announce(&format!("  hint: {hint}"));
        }
        let output = self.output.text();
        let then = match &self.server {
            Some(server) => {
                let fault = Fault {
                    failure,
                    output,
                    meanwhile: "The last good version still answers every request that is not for a page.",
                };
                server.show(fault.html()).await;
                "the last good version goes on"
            }
            None => {
                let fault = Fault {
                    failure,
                    output,
                    meanwhile: "There is no version that could be served yet.",
                };
                self.stand_in = Some(StandIn::start(&self.listeners, fault)?);
                "waiting for a change"
            }
        };
        log::announce(&format!("wrun: {what}, {then}"));
        Ok(())
    }
}
