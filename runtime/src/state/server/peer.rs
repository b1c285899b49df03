//! Who is at the other end of a connection, as the kernel tells it.

use nix::unistd::Uid;
use std::io;
use tokio::net::UnixStream;

/// The process that connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Peer {
    pub(super) pid: i32,
}

impl Peer {
    /// Returns the peer of a connection, unless it is another user's process: root may connect, too.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let uid = Uid::from_raw(credentials.uid());
        if uid != Uid::effective() && !uid.is_root() {
            let what = format!("it belongs to another user (uid {uid})");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Ok(Self {
            pid: credentials.pid().unwrap_or(0),
        })
    }

    /// Returns the pid of its parent, if it still runs.
    pub(super) fn parent(self) -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name before may hold anything, spaces and brackets included.
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(1)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_is_the_one_that_the_system_names() {
        let own = Peer {
            pid: nix::unistd::getpid().as_raw(),
        };
        assert_eq!(own.parent(), Some(nix::unistd::getppid().as_raw()));
        assert_eq!(Peer { pid: i32::MAX }.parent(), None);
    }
}
