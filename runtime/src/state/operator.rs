//! The line from a `wrun` command to the state process: one question at a time, without an event loop.

use super::protocol::{Call, FromState, Incoming, OperatorCall, Outgoing, Reply, Request, Role};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::state_folder::Way;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the state process may take to answer. A backup of a large database takes long.
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// How much is read at a time.
const READ: usize = 64 << 10;

/// A connection that may ask what operators may.
#[derive(Debug)]
pub struct Operator {
    stream: UnixStream,
    incoming: Incoming,
    /// The number of the last question.
    last: u64,
}

/// Connects to the state process of a running server. `socket` is in its state folder.
pub fn connect(socket: &Path) -> Result<Operator, Failure> {
    let stream = Way::to(socket)
        .and_then(|way| UnixStream::connect(way.path()))
        .map_err(|error| cannot_connect(socket, &error))?;
    let timeout = stream.set_read_timeout(Some(ANSWER_MAX));
    timeout.or_fail(ExitCode::System, || "cannot set a time limit".to_owned())?;
    let mut operator = Operator {
        stream,
        incoming: Incoming::default(),
        last: 0,
    };
    let role = Role::Operator;
    match operator.call(Call::Hello { role })? {
        Reply::Done => Ok(operator),
        reply => Err(unexpected(&reply)),
    }
}

impl Operator {
    /// Asks one question. The answer may say that it was refused; that there is none is a failure.
    pub fn ask(&mut self, call: OperatorCall) -> Result<Reply, Failure> {
        self.call(Call::Operator(call))
    }

    fn call(&mut self, call: Call) -> Result<Reply, Failure> {
        self.last += 1;
        let id = self.last;
        let mut out = Outgoing::default();
        let question = out.push(&Request { id, call });
        question.or_fail(ExitCode::Usage, || "the request is too large".to_owned())?;
        let answered = out
            .write(|bytes| self.stream.write(bytes))
            .and_then(|()| self.answer(id));
        match answered {
            Ok(Reply::Refused(why)) => Err(Failure::new(
                ExitCode::NoPermission,
                format!("the state process refuses: {why}"),
            )),
            Ok(reply) => Ok(reply),
            Err(error) => Err(no_answer(&error)),
        }
    }

    fn answer(&mut self, wanted: u64) -> io::Result<Reply> {
        let mut some = vec![0; READ];
        loop {
            match self.incoming.take()? {
                Some(FromState::Reply { id, reply }) if id == wanted => return Ok(reply),
                Some(_) => {}
                None => match self.stream.read(&mut some)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => self.incoming.room().extend_from_slice(&some[..count]),
                },
            }
        }
    }
}

/// The failure for an answer that answers something else.
pub fn unexpected(reply: &Reply) -> Failure {
    Failure::new(
        ExitCode::Internal,
        format!("the state process gave an unexpected answer: {reply:?}"),
    )
}

fn cannot_connect(socket: &Path, error: &io::Error) -> Failure {
    let folder = socket.parent().unwrap_or(socket).display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(
            ExitCode::NoPermission,
            format!("state folder {folder} belongs to another user"),
        )
        .hint("run this as the user who runs the server"),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
            ExitCode::Unavailable,
            format!("no server that keeps state is running with state folder {folder}"),
        )
        .hint("name the server's state folder with --state"),
        _ => Failure::new(
            ExitCode::Unavailable,
            format!("cannot connect to {}: {error}", socket.display()),
        ),
    }
}

fn no_answer(error: &io::Error) -> Failure {
    let what = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "the state process does not answer".to_owned()
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => "the state process closed the connection".to_owned(),
        _ => format!("cannot talk to the state process: {error}"),
    };
    Failure::new(ExitCode::Unavailable, what).hint("try again; it is restarted by itself")
}
