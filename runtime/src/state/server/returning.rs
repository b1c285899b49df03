//! The workers that a state process before this one had given locks to, and that may still believe in them.
//!
//! Nothing is granted to others before each has connected, whereby it learns that its locks are lost, or is dead.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Who is missing.
#[derive(Debug, Default)]
pub(super) struct Returning {
    /// Each with the task that waits for its death.
    missing: RefCell<HashMap<i32, AbortHandle>>,
    /// Those that have come, for a list that names them late.
    here: RefCell<HashSet<i32>>,
    fewer: Notify,
}

impl Returning {
    /// Waits for these processes from now on.
    pub(super) fn expect(self: &Rc<Self>, pids: &[i32]) {
        for &pid in pids {
            let mut missing = self.missing.borrow_mut();
            if !self.here.borrow().contains(&pid) && !missing.contains_key(&pid) {
                let returning = self.clone();
                let watch = tokio::task::spawn_local(async move {
                    death(pid).await;
                    returning.strike(pid);
                });
                missing.insert(pid, watch.abort_handle());
            }
        }
    }

    /// A process has connected.
    pub(super) fn connected(&self, pid: i32) {
        self.here.borrow_mut().insert(pid);
        self.strike(pid);
    }

    /// Tells whether somebody is missing.
    pub(super) fn is_waiting(&self) -> bool {
        !self.missing.borrow().is_empty()
    }

    /// Waits until nobody is missing.
    pub(super) async fn over(&self) {
        while self.is_waiting() {
            self.fewer.notified().await;
        }
    }

    /// Waits for nobody any more.
    pub(super) fn give_up(&self) {
        for (_, watch) in self.missing.borrow_mut().drain() {
            watch.abort();
        }
    }

    fn strike(&self, pid: i32) {
        if let Some(watch) = self.missing.borrow_mut().remove(&pid) {
            watch.abort();
            self.fewer.notify_one();
        }
    }
}

/// Waits until a process has ended.
async fn death(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else {
        return;
    };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return,
        // It cannot be watched: it has to connect, or the wait ends by its own limit.
        Err(_) => return std::future::pending().await,
    };
    // SAFETY: the pidfd owns its descriptor, and the `AsyncFd` owns the pidfd from here on.
    match unsafe { AsyncFd::register(pidfd) } {
        Ok(pidfd) => drop(pidfd.readable().await),
        Err(_) => std::future::pending().await,
    }
}
