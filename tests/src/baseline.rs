//! What a server looks like while nothing happens, so that a test can tell whether an attack left anything behind: the same
//! worker, its descriptors, its memory, and an answer to the next request.

use crate::process;
use crate::server::Server;
use crate::wait::{SOON, eventually};

/// How much more memory a worker may have after an attack: code, buffers and slots that were touched for the first time.
const GROWTH_MAX: u64 = 48 << 20;

/// Requests that warm a worker up.
const WARM_UP: usize = 20;

/// A server with one worker, as it was.
#[derive(Clone, Copy, Debug)]
pub struct Baseline {
    worker: i32,
    supervisor: i32,
    descriptors: usize,
    supervisor_descriptors: usize,
    rss_bytes: u64,
}

impl Baseline {
    /// Takes the baseline of a server whose guest answers GET `/` with 200.
    ///
    /// # Panics
    ///
    /// If it does not, or the server has not one worker.
    #[track_caller]
    pub fn of(server: &Server) -> Self {
        let mut connection = server.connect();
        for _ in 0..WARM_UP {
            assert_eq!(connection.get("/").status, 200, "before the attack");
        }
        drop(connection);
        let worker = server.worker().pid;
        server.when_idle();
        Self {
            worker,
            supervisor: server.pid(),
            descriptors: process::descriptors(worker),
            supervisor_descriptors: process::descriptors(server.pid()),
            rss_bytes: process::rss_bytes(worker),
        }
    }

    /// Checks that everything is as it was, and that the next request is answered.
    ///
    /// # Panics
    ///
    /// If it is not soon.
    #[track_caller]
    pub fn holds(&self, server: &Server) {
        assert_eq!(server.get("/").status, 200, "the next request");
        assert_eq!(server.worker().pid, self.worker, "the same worker");
        server.when_idle();
        self.settles("descriptors of the worker", self.descriptors as u64, || {
            process::descriptors(self.worker) as u64
        });
        self.settles(
            "descriptors of the supervisor",
            self.supervisor_descriptors as u64,
            || process::descriptors(self.supervisor) as u64,
        );
        self.settles("memory of the worker", self.rss_bytes + GROWTH_MAX, || {
            process::rss_bytes(self.worker)
        });
    }

    #[track_caller]
    fn settles(&self, what: &str, max: u64, now: impl Fn() -> u64) {
        let what = format!("{what}: at most {max}, as in {self:?}");
        eventually(&what, SOON, || (now() <= max).then_some(()));
    }
}
