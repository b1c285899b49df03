//! What a server does for the `wrun dev` that started it: shows its errors to browsers, and does not outlive it.

use super::Supervisor;
use super::policy::{Event, Ticket};
use super::worker_handle::WorkerHandle;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::{ControlReply, ToWorker};
use std::time::Instant;

/// The `wrun dev` at the other end of this process's stdin.
#[derive(Debug)]
pub(super) struct Dev {
    ticket: Ticket,
    /// What browsers are shown; gone once another generation serves.
    page: Option<String>,
}

impl Dev {
    pub(super) fn new(ticket: Ticket) -> Self {
        Self { ticket, page: None }
    }
}

impl Supervisor<'_> {
    /// Lets the first generation be the answer that it waits for.
    pub(super) fn promise_dev_an_answer(&mut self) {
        if let Some(dev) = &self.dev {
            let event = Event::Reload(Some(dev.ticket));
            self.policy.note(event, self.started);
        }
    }

    /// Ends the server if its `wrun dev` is gone.
    pub(super) fn follow_dev(&mut self, now: Instant) {
        let control = &self.control;
        if self.dev.take_if(|dev| !control.has(dev.ticket)).is_some() {
            self.policy.note(Event::Terminate, now);
        }
    }

    /// Shows browsers a page, if the one who asks may ask for it.
    pub(super) fn show_error(&mut self, ticket: Ticket, page: String, now: Instant) {
        let reply = match self.dev.as_mut().filter(|dev| dev.ticket == ticket) {
            Some(dev) => {
                dev.page = Some(page.clone());
                self.tell_workers(&ToWorker::ShowError(Some(page)));
                ControlReply::Done
            }
            None => ControlReply::Failed(Failure::new(
                ExitCode::Usage,
                "only the `wrun dev` that started a server can have it show an error",
            )),
        };
        self.control.reply(ticket, &reply, now);
    }

    /// Shows browsers what they ask for again.
    pub(super) fn clear_error(&mut self) {
        let page = self.dev.as_mut().and_then(|dev| dev.page.take());
        if page.is_some() {
            self.tell_workers(&ToWorker::ShowError(None));
        }
    }

    /// Tells a worker that was just started what to show: nothing, if its generation is the next one.
    pub(super) fn pass_error_on(&self, worker: &WorkerHandle, generation: u64) {
        let page = self.dev.as_ref().and_then(|dev| dev.page.clone());
        if page.is_some() && generation == self.policy.generation() {
            worker.tell(&ToWorker::ShowError(page));
        }
    }

    fn tell_workers(&self, message: &ToWorker) {
        for worker in self.workers.values() {
            worker.tell(message);
        }
    }
}
