//! The generations that use the state process, and what the process that runs knows of each.

use crate::supervisor::deploy::Deployment;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

/// Generations that are wanted, or have workers yet, and share something: by number.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<u64, User>);

#[derive(Debug)]
struct User {
    deployment: Rc<Deployment>,
    /// Whether it was ever configured: from then on its workers may start, and wait for the state process themselves.
    is_admitted: bool,
    progress: Progress,
}

/// What the process that runs knows of a generation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// Nothing.
    Unknown,
    /// It was told; given up at the deadline.
    Asked { deadline: Instant },
    /// It serves it.
    Configured,
    /// It could not; told again later.
    Refused { retry_at: Instant },
}

impl Users {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_admitted(&self, generation: u64) -> bool {
        let user = self.0.get(&generation);
        user.is_some_and(|user| user.is_admitted)
    }

    /// Takes in a generation, unless it is in already.
    pub(super) fn enter(&mut self, generation: u64, deployment: &Rc<Deployment>) {
        self.0.entry(generation).or_insert_with(|| User {
            deployment: Rc::clone(deployment),
            is_admitted: false,
            progress: Progress::Unknown,
        });
    }

    /// Lets the others go, and returns those of them that the process was told of.
    pub(super) fn retain(&mut self, stays: impl Fn(u64) -> bool) -> Vec<u64> {
        let gone = self.0.extract_if(.., |&number, _| !stays(number));
        let known = gone.filter(|(_, user)| user.progress != Progress::Unknown);
        known.map(|(number, _)| number).collect()
    }

    /// Returns how far each has come.
    pub(super) fn progress(&self) -> Vec<(u64, Progress)> {
        let users = self.0.iter();
        users
            .map(|(&number, user)| (number, user.progress))
            .collect()
    }

    /// Returns what the process is to be told of a generation.
    pub(super) fn ask(&mut self, generation: u64, deadline: Instant) -> Option<Rc<Deployment>> {
        let user = self.0.get_mut(&generation)?;
        user.progress = Progress::Asked { deadline };
        Some(Rc::clone(&user.deployment))
    }

    /// The process is ready for a generation.
    pub(super) fn configured(&mut self, generation: u64) {
        if let Some(user) = self.0.get_mut(&generation) {
            user.is_admitted = true;
            user.progress = Progress::Configured;
        }
    }

    /// The process is not ready for a generation.
    pub(super) fn refused(&mut self, generation: u64, retry_at: Instant) {
        if let Some(user) = self.0.get_mut(&generation) {
            user.progress = Progress::Refused { retry_at };
        }
    }

    pub(super) fn are_all_configured(&self) -> bool {
        let mut users = self.0.values();
        users.all(|user| user.progress == Progress::Configured)
    }

    /// The process ended: the next one knows nothing. Returns the generations that never had one.
    pub(super) fn start_over(&mut self) -> Vec<u64> {
        for user in self.0.values_mut() {
            user.progress = Progress::Unknown;
        }
        let users = self.0.iter().filter(|(_, user)| !user.is_admitted);
        users.map(|(&number, _)| number).collect()
    }
}
