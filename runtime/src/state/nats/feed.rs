//! The messages of a stream in their order, as they are there and as they come: a consumer of its own, from which they are
//! asked for.
//!
//! Takes nothing out of the stream. It ends with its connection, or where one is missing, and who needs it opens another.

use super::line::{Failed, Line};
use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// Messages that are asked for at a time.
const BATCH: u64 = 256;

/// How long the server is asked to wait for them, and how often it says meanwhile that it is there.
const WAIT: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long the server has to have nothing more until all that there is has been read.
const QUIET: Duration = Duration::from_millis(100);

/// How long the server keeps a consumer from which nobody asks.
const INACTIVE: Duration = Duration::from_secs(60);

/// Which of the messages that are there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum From {
    All,
    /// The last one of each subject.
    Last,
}

/// A feed.
pub(super) struct Feed {
    line: Line,
    next: String,
    inbox: String,
    subscription: Subscriber,
    heartbeat: Duration,
    /// How many are asked for and did not come yet.
    asked: u64,
    /// How many came.
    count: u64,
    /// How many there were when it was opened.
    pub(super) pending: u64,
}

/// A message.
pub(super) struct Item {
    pub(super) sequence: u64,
    pub(super) subject: String,
    /// When it was taken, in nanoseconds since 1970.
    pub(super) at_ns: u64,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
    /// How many are behind it.
    pub(super) pending: u64,
}

#[derive(Deserialize)]
struct Consumer {
    name: String,
    #[serde(default)]
    num_pending: u64,
}

impl Feed {
    /// Opens one on the subjects of a stream that the filter stands for, with their contents or without.
    pub(super) async fn open(
        line: &Line,
        stream: &str,
        filter: &str,
        from: From,
        headers_only: bool,
    ) -> Result<Self, Failed> {
        let config = json!({
            "stream_name": stream,
            "config": {
                "deliver_policy": match from { From::All => "all", From::Last => "last_per_subject" },
                "ack_policy": "none",
                "replay_policy": "instant",
                "filter_subject": filter,
                "headers_only": headers_only,
                "inactive_threshold": nanos(INACTIVE),
                "mem_storage": true,
                "num_replicas": 1,
            },
        });
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}");
        let consumer: Consumer = line.ask(&subject, &config).await?;
        let inbox = line.inbox()?;
        Ok(Self {
            line: line.clone(),
            next: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", consumer.name),
            subscription: line.subscribe(inbox.clone()).await?,
            inbox,
            heartbeat: HEARTBEAT,
            asked: 0,
            count: 0,
            pending: consumer.num_pending,
        })
    }

    /// Waits for the next message. A wait that is given up loses none.
    pub(super) async fn next(&mut self) -> Result<Item, Failed> {
        loop {
            if let Some(item) = self.hear().await? {
                return Ok(item);
            }
        }
    }

    /// Waits for the next message, or until the server says that there is none now.
    async fn hear(&mut self) -> Result<Option<Item>, Failed> {
        if self.asked == 0 {
            self.ask().await?;
        }
        let heard = timeout(HEARTBEAT * 2, self.subscription.next()).await;
        let Ok(heard) = heard else {
            return Err(Failed::Unknown("it has nothing to say".to_owned()));
        };
        let message = heard.ok_or_else(|| Failed::Away("the connection broke".to_owned()))?;
        match message.status {
            None => {
                self.asked = self.asked.saturating_sub(1);
                return self.take(message).map(Some);
            }
            Some(StatusCode::IDLE_HEARTBEAT) => {}
            Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => self.asked = 0,
            Some(status) => {
                let why = message.description.unwrap_or_default();
                return Err(Failed::Unknown(format!("{status} {why}")));
            }
        }
        Ok(None)
    }

    async fn ask(&mut self) -> Result<(), Failed> {
        let request = json!({
            "batch": BATCH,
            "expires": nanos(WAIT),
            "idle_heartbeat": nanos(self.heartbeat),
        });
        let request = serde_json::to_vec(&request).unwrap_or_default();
        let (next, inbox) = (self.next.clone(), self.inbox.clone());
        self.line.tell(next, inbox, request.into()).await?;
        self.asked = BATCH;
        Ok(())
    }

    /// Reads where a message stands, and sees to it that none is missing before it.
    fn take(&mut self, message: Message) -> Result<Item, Failed> {
        let place = message.reply.as_deref().and_then(Place::parse);
        let place = place.ok_or_else(|| Failed::Unknown("a message without a place".to_owned()))?;
        self.count += 1;
        if place.count != self.count {
            return Err(Failed::Unknown("a message is missing".to_owned()));
        }
        Ok(Item {
            sequence: place.sequence,
            subject: message.subject.to_string(),
            at_ns: place.at_ns,
            headers: message.headers.unwrap_or_default(),
            payload: message.payload,
            pending: place.pending,
        })
    }
}

/// Reads what is there now: at most so many, and so many bytes or one more.
///
/// What a server says of how many are left is not to be relied on after it was killed; that it has nothing to say is.
pub(super) async fn read(
    line: &Line,
    stream: &str,
    filter: &str,
    (most, most_bytes): (usize, usize),
) -> Result<Vec<Item>, Failed> {
    let mut feed = Feed::open(line, stream, filter, From::All, false).await?;
    feed.heartbeat = QUIET;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while found.len() < most && bytes <= most_bytes {
        let Some(item) = feed.hear().await? else {
            break;
        };
        bytes += item.payload.len();
        found.push(item);
    }
    Ok(found)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Where a message stands, as the subject says that it would be acknowledged to.
#[derive(Debug, Eq, PartialEq)]
struct Place {
    sequence: u64,
    count: u64,
    at_ns: u64,
    pending: u64,
}

impl Place {
    /// Servers before 2.10 leave out a domain and an account.
    fn parse(reply: &str) -> Option<Self> {
        let all: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let own = if all.len() == 7 {
            &all[2..]
        } else {
            all.get(4..)?
        };
        let number = |at: usize| own.get(at)?.parse().ok();
        Some(Self {
            sequence: number(1)?,
            count: number(2)?,
            at_ns: number(3)?,
            pending: number(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_of_a_message_is_read_as_old_and_new_servers_write_it() {
        let expected = Place {
            sequence: 10,
            count: 3,
            at_ns: 1_700_000_000_000_000_001,
            pending: 7,
        };
        for reply in [
            "$JS.ACK.wrun_jobs.abc.1.10.3.1700000000000000001.7",
            "$JS.ACK._.hash.wrun_jobs.abc.1.10.3.1700000000000000001.7.random",
        ] {
            assert_eq!(Place::parse(reply).as_ref(), Some(&expected), "{reply}");
        }
        for wrong in ["", "$JS.ACK.", "$JS.ACK.a.b.c.d.e.f.g", "_INBOX.x"] {
            assert_eq!(Place::parse(wrong), None);
        }
    }
}
