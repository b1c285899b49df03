//! `wrun queue`: what waits in queues and in their dead letters, and what an operator does about it.

use super::print::print_as;
use super::state::{ask, unexpected};
use super::table::{millis, table};
use super::value::{hex, time};
use super::{JsonArgs, ServerArgs};
use crate::config::{Span, key_value};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::protocol::{ListedQueue, OperatorCall, Reply};
use crate::state::queue::{BODY_MAX, Message, Peeked, QueueStatus};
use clap::Subcommand;
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::io::{self, Read as _};

/// Characters of a body that a table shows.
const PREVIEW: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List the queues
    Ls {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Show the oldest messages without taking them
    Peek {
        /// The queue
        queue: String,
        /// Show its dead letters instead
        #[arg(long)]
        dead: bool,
        /// How many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
        count: u32,
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Send a message
    Send(Box<SendArgs>),
    /// Send dead letters back to their queue, their attempts counted anew
    Redrive {
        /// The queue
        queue: String,
        /// At most so many, the oldest first [default: all]
        #[arg(short = 'n', long, value_name = "N")]
        count: Option<u32>,
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
    /// Delete all messages that nobody is handling
    Purge {
        /// The queue
        queue: String,
        /// Delete its dead letters instead
        #[arg(long)]
        dead: bool,
        /// Really do it
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        json: JsonArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct SendArgs {
    /// The queue
    queue: String,
    /// The body; `-` reads it from stdin
    #[arg(default_value = "-", allow_negative_numbers = true)]
    body: String,
    /// Messages with the same key are handled one after the other
    #[arg(short, long, value_name = "KEY")]
    key: Option<String>,
    /// Add a header; repeatable
    #[arg(short = 'H', long, value_name = "K=V", value_parser = key_value)]
    header: Vec<(String, String)>,
    /// Say what the body is, such as application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Nobody gets it before this much time has passed
    #[arg(long, value_name = "TIME")]
    delay: Option<Span>,
    /// A second message with this id, within five minutes, is the same one
    #[arg(long, value_name = "ID")]
    dedup_id: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    json: JsonArgs,
}

pub(super) fn run(command: QueueCommand) -> Result<ExitCode, Failure> {
    match command {
        QueueCommand::Ls { server, json } => match ask(&server.state, OperatorCall::Queues)? {
            Reply::Queues(queues) => list(&queues, json.json),
            reply => Err(unexpected(&reply)),
        },
        QueueCommand::Peek {
            queue,
            dead,
            count,
            server,
            json,
        } => match ask(&server.state, OperatorCall::Peek { queue, dead, count })? {
            Reply::Messages(messages) => {
                let shown: Vec<Shown> = messages.iter().map(Shown::new).collect();
                print_as(json.json, &shown, |shown| preview(shown, dead))
            }
            reply => Err(unexpected(&reply)),
        },
        QueueCommand::Send(args) => send(*args),
        QueueCommand::Redrive {
            queue,
            count,
            server,
            json,
        } => {
            let count = count.unwrap_or(u32::MAX);
            let reply = ask(&server.state, OperatorCall::Redrive { queue, count })?;
            print_count(&reply, json.json, "sent back")
        }
        QueueCommand::Purge { yes: false, .. } => Err(Failure::new(
            ExitCode::Usage,
            "a purge cannot be undone, so nothing was deleted",
        )
        .hint("add --yes if you mean it")),
        QueueCommand::Purge {
            queue,
            dead,
            server,
            json,
            ..
        } => {
            let reply = ask(&server.state, OperatorCall::Purge { queue, dead })?;
            print_count(&reply, json.json, "deleted")
        }
    }
}

fn send(args: SendArgs) -> Result<ExitCode, Failure> {
    let message = Message {
        body: match args.body.as_str() {
            "-" => read_body()?,
            body => body.as_bytes().to_vec(),
        },
        content_type: args.content_type,
        headers: args.header,
        key: args.key,
        dedup_id: args.dedup_id,
        delay_ms: args
            .delay
            .map(|delay| u64::try_from(delay.duration().as_millis()).unwrap_or(u64::MAX)),
    };
    let call = OperatorCall::Send {
        queue: args.queue,
        messages: vec![message],
    };
    match ask(&args.server.state, call)? {
        Reply::Ids(mut ids) if ids.len() == 1 => {
            let sent = Sent { id: ids.remove(0) };
            print_as(args.json.json, &sent, |sent| format!("{}\n", sent.id))
        }
        reply => Err(unexpected(&reply)),
    }
}

/// Reads a body from stdin; one that is too large is read only as far as it takes to be refused.
fn read_body() -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let mut stdin = io::stdin().lock().take(BODY_MAX as u64 + 1);
    match stdin.read_to_end(&mut body) {
        Ok(_) => Ok(body),
        Err(error) => Err(
            Failure::new(ExitCode::NoInput, format!("cannot read stdin: {error}"))
                .hint("name the body after the queue, or pass it on stdin"),
        ),
    }
}

fn print_count(reply: &Reply, json: bool, what: &str) -> Result<ExitCode, Failure> {
    match reply {
        &Reply::Count(count) => print_as(json, &Count { count }, |_| match count {
            1 => format!("1 message {what}\n"),
            _ => format!("{count} messages {what}\n"),
        }),
        reply => Err(unexpected(reply)),
    }
}

/// A queue, or why nobody can tell how it stands.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed<'a> {
    Known {
        #[serde(flatten)]
        status: &'a QueueStatus,
        outbox: Option<u64>,
    },
    Unknown {
        queue: &'a str,
        error: String,
        outbox: Option<u64>,
    },
}

/// Prints all of them, and fails then if there is one of which nobody can tell how it stands.
fn list(queues: &[ListedQueue], json: bool) -> Result<ExitCode, Failure> {
    let listed: Vec<Listed<'_>> = queues
        .iter()
        .map(|listed| {
            let outbox = listed.outbox;
            match &listed.status {
                Ok(status) => Listed::Known { status, outbox },
                Err(error) => Listed::Unknown {
                    queue: &listed.queue,
                    error: error.to_string(),
                    outbox,
                },
            }
        })
        .collect();
    print_as(json, &listed, |listed| overview(listed))?;
    let unknown: Vec<String> = listed
        .iter()
        .filter_map(|one| match one {
            Listed::Known { .. } => None,
            Listed::Unknown { queue, error, .. } => Some(format!("queue {queue}: {error}")),
        })
        .collect();
    match unknown.is_empty() {
        true => Ok(ExitCode::Ok),
        false => Err(Failure::new(ExitCode::Unavailable, unknown.join("; "))
            .hint("`wrun ps` says which servers can be reached")),
    }
}

fn overview(queues: &[Listed<'_>]) -> String {
    let header = "QUEUE MESSAGES READY DELAYED IN-FLIGHT DEAD CONSUMERS OLDEST OUTBOX";
    let header: Vec<&str> = header.split(' ').collect();
    let waiting = |outbox: &Option<u64>| outbox.map_or("?".to_owned(), |count| count.to_string());
    let row = |one: &Listed<'_>| match one {
        Listed::Known {
            status: queue,
            outbox,
        } => vec![
            queue.queue.clone(),
            queue.messages.to_string(),
            queue.ready.to_string(),
            queue.delayed.to_string(),
            queue.in_flight.to_string(),
            queue.dead.to_string(),
            queue.consumers.to_string(),
            millis(queue.oldest_ms),
            waiting(outbox),
        ],
        Listed::Unknown { queue, outbox, .. } => {
            let mut row = vec!["?".to_owned(); header.len() - 1];
            (*queue).clone_into(&mut row[0]);
            row.push(waiting(outbox));
            row
        }
    };
    table(&header, queues.iter().map(row))
}

fn preview(messages: &[Shown<'_>], dead: bool) -> String {
    let header = ["ID", "SENT", "KEY", "ATTEMPTS", "HEADERS", "BODY"];
    let row = |message: &Shown<'_>| {
        let headers = message.headers.0.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        vec![
            message.id.to_owned(),
            time(message.sent_at_ms),
            message.key.unwrap_or_default().to_owned(),
            message.attempts.to_string(),
            // For dead letters they say why it is one; otherwise they are the sender's and may be long.
            match dead {
                true => headers.join(" "),
                false => beginning(&headers.join(" ")),
            },
            beginning(&message.body),
        ]
    };
    table(&header, messages.iter().map(row))
}

fn beginning(text: &str) -> String {
    match text.char_indices().nth(PREVIEW) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What `wrun queue send --json` prints.
#[derive(Serialize)]
struct Sent {
    id: String,
}

/// What `wrun queue redrive --json` and `purge --json` print.
#[derive(Serialize)]
struct Count {
    count: u64,
}

/// A message as `wrun queue peek --json` prints it.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    key: Option<&'a str>,
    attempts: u32,
    /// Milliseconds since 1970.
    sent_at_ms: u64,
    content_type: Option<&'a str>,
    headers: Headers<'a>,
    body: Cow<'a, str>,
    /// `text`, or `hex` for a body that is no text.
    encoding: &'static str,
}

impl<'a> Shown<'a> {
    fn new(message: &'a Peeked) -> Self {
        let (body, encoding) = match std::str::from_utf8(&message.body) {
            Ok(text) => (Cow::Borrowed(text), "text"),
            Err(_) => (Cow::Owned(hex(&message.body)), "hex"),
        };
        Self {
            id: &message.id,
            key: message.key.as_deref(),
            attempts: message.attempts,
            sent_at_ms: message.sent_at_ms,
            content_type: message.content_type.as_deref(),
            headers: Headers(&message.headers),
            body,
            encoding,
        }
    }
}

/// Headers as an object, in the sender's order.
struct Headers<'a>(&'a [(String, String)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> Peeked {
        Peeked {
            id: "m1".into(),
            key: None,
            attempts: 3,
            sent_at_ms: 0,
            content_type: None,
            headers: vec![("wrun-dead-reason".into(), "no\nsuch order".into())],
            body: body.to_vec(),
        }
    }

    #[test]
    fn message_is_one_line_however_long_its_body() {
        let message = message("ä".repeat(100).as_bytes());
        let text = preview(&[Shown::new(&message)], true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[1].contains("wrun-dead-reason=no\\nsuch order"),
            "{text}"
        );
        assert!(
            lines[1].ends_with(&format!("{}…", "ä".repeat(60))),
            "{text}"
        );
    }

    #[test]
    fn body_that_is_no_text_is_shown_in_hex() {
        let message = message(&[0xff, 0]);
        let shown = serde_json::to_value(Shown::new(&message)).unwrap();
        assert_eq!(
            (&shown["body"], &shown["encoding"]),
            (&"\\xff00".into(), &"hex".into())
        );
        assert_eq!(shown["headers"]["wrun-dead-reason"], "no\nsuch order");
    }
}
