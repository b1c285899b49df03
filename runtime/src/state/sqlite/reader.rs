//! Threads that read a database: each has a connection, and sees a snapshot for as long as its transaction lasts.
//!
//! They are started when there is more to do than threads that wait for it.

use super::Options;
use super::connection::{Connection, Role};
use super::shared::{Shared, Watchdog};
use super::statement::Statements;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// What a reader does, once. Dropped undone, it has given no answer.
pub(super) type Read = Box<dyn FnOnce(&Statements<'_>) + Send>;

/// The readers of one database, or those kept for one purpose.
pub(super) struct Readers {
    options: Options,
    shared: Arc<Shared>,
    most: usize,
    reads: RefCell<Option<Sender<Read>>>,
    queue: Arc<Queue>,
    threads: RefCell<Vec<JoinHandle<()>>>,
}

struct Queue {
    reads: Mutex<Receiver<Read>>,
    /// Threads that wait, less the reads that wait for them.
    spare: AtomicUsize,
}

impl Readers {
    /// Makes a set of at most so many readers; none is started yet.
    pub(super) fn new(options: Options, shared: Arc<Shared>, most: usize) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self {
            options,
            shared,
            most,
            reads: RefCell::new(Some(sender)),
            queue: Arc::new(Queue {
                reads: Mutex::new(receiver),
                spare: AtomicUsize::new(0),
            }),
            threads: RefCell::default(),
        }
    }

    /// Has something read. It is dropped if no thread could be started, and after [`Self::close`].
    pub(super) fn read(&self, read: Read) {
        let Some(reads) = &*self.reads.borrow() else {
            return;
        };
        let spare = &self.queue.spare;
        let taken = spare.fetch_update(Ordering::AcqRel, Ordering::Acquire, |spare| {
            spare.checked_sub(1)
        });
        if taken.is_err() && self.threads.borrow().len() < self.most {
            self.start();
        }
        if !self.threads.borrow().is_empty() {
            // It fails only if no thread is left.
            let _ = reads.send(read);
        }
    }

    fn start(&self) {
        let (options, queue) = (self.options.clone(), Arc::clone(&self.queue));
        let watchdog = Watchdog(Arc::clone(&self.shared));
        let name = format!("read {}", self.options.label);
        match thread::Builder::new().name(name).spawn(move || {
            let _watchdog = watchdog;
            run(&options, &queue);
        }) {
            Ok(thread) => self.threads.borrow_mut().push(thread),
            Err(error) => tracing::warn!(%error, "a reader could not be started"),
        }
    }

    /// Takes nothing more; the threads end when they have done what was asked for.
    pub(super) fn close(&self) -> Vec<JoinHandle<()>> {
        self.reads.take();
        self.threads.take()
    }
}

fn run(options: &Options, queue: &Queue) {
    let next = || {
        let reads = queue.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.recv().ok()
    };
    // Without a connection reads are dropped, and the next one tries again.
    while let Some(first) = next() {
        let connection = match Connection::open(options, Role::Reader) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "no connection for reads");
                continue;
            }
        };
        let statements = Statements::new(&connection);
        first(&statements);
        loop {
            queue.spare.fetch_add(1, Ordering::AcqRel);
            let Some(read) = next() else { return };
            read(&statements);
        }
    }
}
