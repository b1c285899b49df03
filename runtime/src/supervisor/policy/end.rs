//! How the server ends: drained, or at once, or because it could not even start. Either way the state process is last.

use super::rollout::Rollout;
use super::{Action, Policy};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::ControlReply;

impl Policy {
    /// Drains every worker; the end comes when they are gone, and then the state process.
    pub(super) fn stop(&mut self) {
        if self.ending.is_none() {
            self.end(Ok(()));
            self.actions.push(Action::Stopping);
        }
    }

    /// Drains every worker, or if a signal asked for that before, kills everything.
    pub(super) fn terminate(&mut self) {
        if self.terminated {
            let why = "a second signal asked for it";
            self.kill_all(why);
            self.kill_state_for_good(why);
        }
        self.terminated = true;
        self.stop();
    }

    /// Ends with `failure`: nothing serves, so nothing is drained.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.end(Err(failure));
        self.kill_all("the server could not start");
    }

    /// Returns what somebody is told whose request comes too late.
    pub(super) fn refusal() -> ControlReply {
        ControlReply::Failed(Failure::new(
            ExitCode::Unavailable,
            "the server is stopping",
        ))
    }

    fn end(&mut self, result: Result<(), Failure>) {
        self.ending = Some(result);
        let rollout = self.rollout.take();
        if matches!(rollout, Some(Rollout::Preparing(_))) {
            self.actions.push(Action::EndPreparation);
        }
        let mut tickets = self.waiting.take().unwrap_or_default();
        tickets.extend(rollout.into_iter().flat_map(Rollout::into_tickets));
        tickets.extend(self.scaling.drain(..).map(|scaling| scaling.ticket));
        self.answer(tickets, &Self::refusal());
    }

    fn kill_all(&mut self, why: &'static str) {
        for id in self.ids(|_| true) {
            self.expect_end(id);
            self.kill(id, why);
        }
    }
}
