//! How the commands for databases, queues, locks and key-value stores ask a server's state process, and what its refusals are to the user.

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::db::DbError;
use crate::state::operator;
use crate::state::protocol::{OperatorCall, Reply};
use crate::state::queue::QueueError;
use crate::state_folder;
use std::path::Path;

/// Asks the server whose state folder is `folder`.
pub(super) fn ask(folder: &Path, call: OperatorCall) -> Result<Reply, Failure> {
    let socket = state_folder::state_socket(folder)?;
    let asked = operator::connect(&socket).and_then(|mut server| server.ask(call));
    match asked.map_err(with_hint)? {
        Reply::Db(error) => Err(database_failure(&error)),
        Reply::Queue(error) => Err(queue_failure(&error)),
        Reply::Lock(error) => Err(unavailable(error.to_string())),
        reply => Ok(reply),
    }
}

fn with_hint(failure: Failure) -> Failure {
    match failure.hint {
        Some(_) => failure,
        None => failure.hint("the server's log says what its state process does"),
    }
}

/// Says that an answer is not one to the question.
pub(super) fn unexpected(reply: &Reply) -> Failure {
    Failure::new(
        ExitCode::Internal,
        format!("the state process gave an answer to another question: {reply:?}"),
    )
    .hint("is it another version of wrun?")
}

fn database_failure(error: &DbError) -> Failure {
    let wrong = |hint| Failure::new(ExitCode::Usage, error.to_string()).hint(hint);
    match error {
        DbError::Denied(_) => {
            wrong("`wrun db ls` lists the databases; a query may do what guests may")
        }
        DbError::Invalid(_) => wrong("give one statement, and a value for each of its parameters"),
        DbError::Engine {
            retryable: false, ..
        } => wrong("the statement was refused, and nothing was changed"),
        DbError::TooLarge(_) => wrong("ask for fewer rows, with LIMIT"),
        DbError::Engine { .. }
        | DbError::Timeout(_)
        | DbError::Closed
        | DbError::LostFence
        | DbError::OutcomeUnknown
        | DbError::Unavailable(_)
        | DbError::Other(_) => unavailable(error.to_string()),
    }
}

fn queue_failure(error: &QueueError) -> Failure {
    let wrong = |hint| Failure::new(ExitCode::Usage, error.to_string()).hint(hint);
    match error {
        QueueError::Denied(_) => wrong("`wrun queue ls` lists the queues"),
        QueueError::Invalid(_) | QueueError::TooLarge(_) => {
            wrong("docs/operations.md says what a message may be")
        }
        QueueError::Full => Failure::new(ExitCode::Unavailable, error.to_string())
            .hint("wait for its consumers, or raise `max-depth` in wrun.toml"),
        QueueError::Closed
        | QueueError::OutcomeUnknown
        | QueueError::NotYours
        | QueueError::Refused(..)
        | QueueError::Unavailable(_)
        | QueueError::Other(_) => unavailable(error.to_string()),
    }
}

fn unavailable(message: String) -> Failure {
    Failure::new(ExitCode::Unavailable, message)
        .hint("try again; the server's log says what its state process does")
}
