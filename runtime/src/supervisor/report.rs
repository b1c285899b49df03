//! What the supervisor tells people: the answer to `wrun ps`, and the lines in the log that say why.

use super::Supervisor;
use super::deploy::Deployment;
use super::policy::WorkerId;
use super::process::Ending;
use crate::config::shared::{Bound, Database};
use crate::ipc::{BindingStatus, Processes, Reach, StateStatus, SupervisorStatus, WorkerStatus};
use crate::log;
use std::time::Instant;

impl Supervisor<'_> {
    /// Returns every process as it stands.
    pub(super) fn processes(&self, now: Instant) -> Processes {
        let seconds_since = |start: Instant| now.saturating_duration_since(start).as_secs();
        let supervisor = SupervisorStatus {
            pid: nix::unistd::getpid().as_raw(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            urls: self.urls.clone(),
            path: self.config.path.display().to_string(),
            generation: self.policy.generation(),
            state: self.policy.state().to_owned(),
            workers: self.policy.target(),
            uptime_s: seconds_since(self.started),
        };
        let state = self
            .policy
            .state_process()
            .status()
            .map(|(state, restarts)| {
                let handle = self.state_process.as_ref();
                StateStatus {
                    pid: handle.map(|handle| handle.process.pid().as_raw()),
                    state: state.to_owned(),
                    restarts,
                    rss_bytes: handle.map_or(0, |handle| handle.process.resident()),
                    uptime_s: handle.map_or(0, |handle| seconds_since(handle.started)),
                }
            });
        let status = |(&id, handle): (&WorkerId, &super::WorkerHandle)| {
            let worker = self.policy.worker(id)?;
            Some(WorkerStatus {
                slot: worker.place().slot,
                pid: handle.process.pid().as_raw(),
                generation: worker.place().generation,
                state: worker.state().to_owned(),
                requests: handle.vitals.requests,
                in_flight: handle.vitals.in_flight,
                connections: handle.vitals.connections,
                restarts: self.policy.restarts(worker.place().slot),
                rss_bytes: handle.process.resident(),
                uptime_s: seconds_since(handle.started),
            })
        };
        let mut workers: Vec<_> = self.workers.iter().filter_map(status).collect();
        workers.sort_by_key(|worker| (worker.slot, worker.generation, worker.pid));
        Processes {
            supervisor,
            state,
            bindings: self.bindings.list().map(|it| self.binding(it)).collect(),
            workers,
        }
    }

    /// Says that workers keep dying, or no longer.
    pub(super) fn announce_degraded(&self, degraded: bool) {
        if degraded {
            tracing::error!("workers keep dying, restarts are slowed down");
            self.notify.status("degraded: workers keep dying");
        } else {
            tracing::info!("workers have stopped dying");
            self.notify.status("serving");
        }
    }

    /// Returns how it stands with a label that is bound to a server.
    fn binding(&self, (name, bound): (String, &Bound)) -> BindingStatus {
        let handle = self.state_process.as_ref();
        let known = handle.and_then(|handle| handle.vitals.bound.get(&name));
        BindingStatus {
            backend: bound.backend.clone(),
            url: bound.shown.clone(),
            reachable: known.map(|reach| !matches!(reach, Reach::Away(_))),
            why: known.and_then(Reach::why).map(str::to_owned),
            name,
        }
    }

    /// Says that a generation serves; the first time with the line that scripts wait for.
    pub(super) fn announce(&self, generation: u64, workers: usize, is_first: bool) {
        if is_first {
            let noun = if workers == 1 { "worker" } else { "workers" };
            let what = match self.urls.is_empty() {
                true => "handling messages".to_owned(),
                false => format!("listening on {}", self.urls.join(" ")),
            };
            match self.dev {
                // It has said so already.
                Some(_) => log::release(),
                // The tests and README wait for this line: the first one on stderr.
                None => log::announce(&format!("wrun: {what} ({workers} {noun})")),
            }
            self.verdict.say();
        }
        tracing::info!(generation, workers, "serving");
        self.notify.ready(&format!(
            "serving generation {generation}, workers: {workers}"
        ));
    }

    /// Says how a worker ended: as news if somebody asked for it, as a warning if not.
    pub(super) fn log_ending(&self, id: WorkerId, ending: &Ending) {
        let (Some(handle), Some(worker)) = (self.workers.get(&id), self.policy.worker(id)) else {
            return;
        };
        let (slot, pid, generation) = (
            worker.place().slot,
            handle.process.pid().as_raw(),
            worker.place().generation,
        );
        let requests = handle.vitals.requests;
        if worker.is_written_off() {
            tracing::info!(slot, pid, generation, requests, %ending, "worker ended");
        } else {
            tracing::warn!(slot, pid, generation, requests, %ending, "worker ended unasked");
        }
    }

    /// Says which settings a reload cannot change, if they were changed.
    pub(super) fn warn_of_ignored_changes(&self, deployment: &Deployment) {
        let new = &deployment.prepared.config;
        if new.addrs != self.config.addrs {
            tracing::warn!(addrs = ?new.addrs, "new addresses need a restart, ignored");
        }
        if new.state.path != self.config.state.path {
            let folder = new.state.path.display();
            tracing::warn!(%folder, "new state folder needs a restart, ignored");
        }
        if new.sandbox != self.config.sandbox {
            tracing::warn!("another sandbox or user needs a restart, ignored");
        }
        for (db, new) in &new.shared.databases {
            let old = self.config.shared.databases.get(db);
            let settings = |it: &Database| (it.max_size, it.durability);
            if old.is_some_and(|old| settings(old) != settings(new)) {
                tracing::warn!(
                    db,
                    "new max-size or durability of an open database needs a restart, ignored"
                );
            }
        }
        for (store, new) in &new.shared.keyvalue {
            let old = self.config.shared.keyvalue.get(store);
            if old.is_some_and(|old| old != new) {
                tracing::warn!(
                    store,
                    "new max-size or durability of an open key-value store needs a restart, ignored"
                );
            }
        }
    }
}
