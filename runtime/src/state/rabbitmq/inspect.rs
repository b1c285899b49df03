//! What a server says of itself, for `wrun doctor`.

use super::address::{Address, Socket};
use super::line::text;
use super::socket;
use amq_protocol::frame::{AMQPFrame, ProtocolVersion, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, connection};
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long it may take.
const INSPECT_MAX: Duration = Duration::from_secs(10);

/// How long a server that is short of memory or disk takes to say so.
const ALARM: Duration = Duration::from_millis(300);

/// The longest frame of which a server presents itself.
const FRAME_MAX: usize = 64 << 10;

/// What was found.
#[derive(Clone, Debug)]
pub struct Inspection {
    pub product: String,
    pub version: String,
    pub is_encrypted: bool,
    /// On this machine.
    pub is_local: bool,
    /// It takes no messages, for want of memory or disk.
    pub is_blocked: bool,
}

/// Finds out, or why that is not possible.
pub async fn inspect(address: &Address) -> Result<Inspection, String> {
    let silent = |_| "it does not answer".to_owned();
    timeout(INSPECT_MAX, look(address)).await.map_err(silent)?
}

async fn look(address: &Address) -> Result<Inspection, String> {
    let socket = address.connect().await.map_err(|error| error.to_string())?;
    let properties = presented(socket).await.map_err(|error| error.to_string())?;
    let said = |name: &str| match properties.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => "unknown".to_owned(),
    };
    let is_blocked = is_blocked(address).await.map_err(|error| text(&error))?;
    Ok(Inspection {
        product: said("product"),
        version: said("version"),
        is_encrypted: address.is_encrypted(),
        is_local: address.is_local(),
        is_blocked,
    })
}

/// Returns what a server presents itself with, before anybody has logged in.
async fn presented(mut socket: Box<dyn Socket>) -> io::Result<FieldTable> {
    let hello = AMQPFrame::ProtocolHeader(ProtocolVersion::amqp_0_9_1());
    let hello = gen_frame(&hello)(WriteContext::from(Vec::new())).map_err(io::Error::other)?;
    socket.write_all(&hello.write).await?;
    let mut read = Vec::new();
    while read.len() < FRAME_MAX {
        if socket.read_buf(&mut read).await? == 0 {
            break;
        }
        // What is not whole yet is an error, too.
        let Ok((_, frame)) = parse_frame(read.as_slice()) else {
            continue;
        };
        let AMQPFrame::Method(_, AMQPClass::Connection(connection::AMQPMethod::Start(start))) =
            frame
        else {
            break;
        };
        return Ok(start.server_properties);
    }
    Err(io::Error::other(
        "what answers there does not speak AMQP 0-9-1",
    ))
}

/// Logs in; tells whether the server takes no messages. It says so to those who send one.
async fn is_blocked(address: &Address) -> lapin::Result<bool> {
    let (guard, _) = watch::channel(());
    let connection = socket::connect(address, "wrun doctor", &guard).await?;
    let channel = connection.create_channel().await?;
    let (to, nothing) = ("wrun.nowhere".into(), BasicProperties::default());
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), to, options, b"", nothing)
        .await?
        .await?;
    sleep(ALARM).await;
    let is_blocked = connection.status().blocked();
    if !is_blocked {
        connection.close(200, "done".into()).await?;
    }
    Ok(is_blocked)
}
