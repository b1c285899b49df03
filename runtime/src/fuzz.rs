//! What a fuzzer feeds: a function for each kind of bytes that wrun is given by somebody else. Part of the crate with the
//! feature `fuzz` alone.
//!
//! Each panics when a promise is broken. Those that reach into a module are beside what they try.

use crate::config::Manifest;
use crate::config::shared::{Shared, SharedArgs};
use crate::ipc::{
    Channel, ControlReply, ControlRequest, StateReport, ToState, ToSupervisor, ToWorker,
};
use crate::state::protocol::{FromState, Incoming, Outgoing, Request};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::path::Path;

/// A function that tries some bytes.
pub type Target = fn(&[u8]);

/// The functions by their names; each has a folder of that name with inputs to begin with.
pub const TARGETS: [(&str, Target); 9] = [
    ("manifest", manifest),
    ("control-frames", control_frames),
    ("state-frames", state_frames),
    ("requests", crate::worker::fuzz::requests),
    ("answers", crate::worker::fuzz::answers),
    ("outbound", crate::host::http::fuzz::outbound),
    ("sql", crate::state::sqlite::fuzz::fuzz),
    ("locks", crate::state::lock::table::history::fuzz),
    ("queues", crate::state::queue::lanes::model::fuzz),
];

/// A manifest is taken, or refused in one line and with a hint.
fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let read = Manifest::parse(text).and_then(|mut manifest| {
        Shared::merge(&SharedArgs::default(), manifest.shared(), Path::new("."))
    });
    if let Err(failure) = read {
        assert!(failure.hint.is_some(), "{failure}");
        assert!(!failure.message.contains('\n'), "{failure}");
    }
}

/// A packet between processes is a message, and then the same one after it was sent again, or an error.
fn control_frames(bytes: &[u8]) {
    packet::<ToWorker>(bytes);
    packet::<ToSupervisor>(bytes);
    packet::<ToState>(bytes);
    packet::<StateReport>(bytes);
    packet::<ControlRequest>(bytes);
    packet::<ControlReply>(bytes);
}

fn packet<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    use std::os::fd::AsRawFd as _;
    let (ours, theirs) = Channel::pair().expect("there are sockets");
    let flags = nix::sys::socket::MsgFlags::empty();
    if nix::sys::socket::send(ours.as_raw_fd(), bytes, flags).is_err() {
        return;
    }
    let Ok(Some(message)) = theirs.recv::<T>() else {
        return;
    };
    ours.send(&message).expect("what came in can go out");
    let again = theirs
        .recv::<T>()
        .expect("it is a message")
        .expect("it was sent");
    assert_eq!(format!("{message:?}"), format!("{again:?}"));
}

/// Frames are the same messages however they are cut into reads, and again after they were sent again.
fn state_frames(bytes: &[u8]) {
    frames::<Request>(bytes);
    frames::<FromState>(bytes);
}

fn frames<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    let cut = bytes
        .first()
        .map_or(0, |first| usize::from(*first).min(bytes.len()));
    let whole = take_all::<T>([bytes, &[]]);
    let (first, second) = bytes.split_at(cut);
    let cut = take_all::<T>([first, second]);
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
    let mut outgoing = Outgoing::default();
    for message in &whole.0 {
        outgoing.push(message).expect("what came in can go out");
    }
    let mut sent = Vec::new();
    while !outgoing.is_empty() {
        let take = |some: &[u8]| {
            sent.extend_from_slice(some);
            Ok(some.len())
        };
        outgoing.write(take).expect("a vector takes everything");
    }
    let again = take_all::<T>([&sent, &[]]);
    assert_eq!(format!("{:?}", whole.0), format!("{:?}", again.0));
    assert!(again.1, "what is sent is no garbage");
}

/// Takes all messages out of what is read in two pieces; false says that garbage came behind them.
fn take_all<T: DeserializeOwned>(pieces: [&[u8]; 2]) -> (Vec<T>, bool) {
    let (mut incoming, mut messages) = (Incoming::default(), Vec::new());
    for piece in pieces {
        incoming.room().extend_from_slice(piece);
        loop {
            match incoming.take() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
        }
    }
    (messages, true)
}
