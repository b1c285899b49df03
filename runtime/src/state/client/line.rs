//! Keeps a connection to the state process: connects, introduces itself, gives signs of life, reads, connects again.

use super::Line;
use super::link::{Link, Unsent};
use crate::state::protocol::{Call, FromState, Incoming, Reply, Role, Stream};
use crate::state::spin::Spin;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long to wait before connecting again, when there is nobody to connect to.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Keeps a connection for as long as the task lives.
pub(super) async fn keep(line: Arc<Line>) {
    let mut pause = PAUSE_MIN;
    loop {
        match connect(&line).await {
            Ok(link) => {
                pause = PAUSE_MIN;
                let end = Reading::new(&line, &link).run().await;
                tracing::warn!(reason = %end, "the connection to the state process ended");
            }
            Err(error) => {
                tracing::debug!(%error, "cannot connect to the state process");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Connects and says who this is. Waits for a state process that is only just starting: the supervisor holds the
/// socket.
async fn connect(line: &Line) -> io::Result<Arc<Link>> {
    let link = Link::new(Stream::connect(&line.way).await?);
    let role = Role::Worker {
        generation: line.generation,
    };
    link.ask(Call::Hello { role }).map_err(not_sent)?;
    let mut incoming = Incoming::default();
    loop {
        match incoming.take()? {
            Some(FromState::Reply {
                reply: Reply::Done, ..
            }) => return Ok(Arc::new(link)),
            Some(other) => {
                let what = format!("it does not serve this worker: {other:?}");
                return Err(io::Error::other(what));
            }
            None if link.read(incoming.room(), &mut Spin::default()).await? == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            None => {}
        }
    }
}

/// What reads from one connection. Dropped, the connection is over.
struct Reading<'a> {
    line: &'a Line,
    link: &'a Arc<Link>,
    incoming: Incoming,
    /// The sign of life that was sent and not answered: the number of its call, and when.
    beat: Option<(u64, std::time::Instant)>,
}

impl<'a> Reading<'a> {
    fn new(line: &'a Line, link: &'a Arc<Link>) -> Self {
        line.consuming.connect(link);
        line.current.send_replace(Some(link.clone()));
        Self {
            line,
            link,
            incoming: Incoming::default(),
            beat: None,
        }
    }

    /// Reads until the connection ends, and returns why it did.
    async fn run(mut self) -> io::Error {
        let mut behind = pin!(self.link.catch_up());
        let mut hurried = pin!(self.link.hurried());
        let mut spin = Spin::default();
        let mut sent = Instant::now();
        let mut due = pin!(sleep_until(sent));
        loop {
            // Reading is last, because it may always be ready.
            tokio::select! {
                biased;
                () = &mut due => {
                    self.give_sign_of_life();
                    sent = Instant::now();
                    due.as_mut().reset(sent + self.link.beat_interval());
                }
                () = &mut hurried => {
                    hurried.set(self.link.hurried());
                    due.as_mut().reset(sent + self.link.beat_interval());
                }
                error = &mut behind => return error,
                read = self.link.read(self.incoming.room(), &mut spin) => match read {
                    Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                    Ok(_) => if let Err(error) = self.take() {
                        return error;
                    },
                    Err(error) => return error,
                },
            }
        }
    }

    /// Takes every message that has arrived in whole.
    fn take(&mut self) -> io::Result<()> {
        while let Some(message) = self.incoming.take()? {
            match message {
                FromState::Reply { id, reply } => match self.beat {
                    Some((beat, sent)) if beat == id => {
                        self.beat = None;
                        self.link.renew(sent);
                    }
                    _ => self.link.answer(id, reply),
                },
                FromState::Lost { guard } => self.link.lose(guard),
                FromState::Deliver { queue, batch } => {
                    self.line.consuming.deliver(self.link, queue, batch);
                }
            }
        }
        Ok(())
    }

    /// Sends a sign of life, unless the last one is not answered: then another would say no more.
    fn give_sign_of_life(&mut self) {
        if self.beat.is_none() {
            let sent = std::time::Instant::now();
            self.beat = self.link.heartbeat().map(|id| (id, sent)).ok();
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.line.lanes.close();
        self.line.consuming.disconnect();
        self.line.current.send_replace(None);
        self.link.close();
    }
}

fn not_sent(_: Unsent) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
