//! Which commits go to the disk together: those that are there, and those that are about to come, if waiting for them costs
//! less than it brings.
//!
//! On a quick disk it does while many wait for the writer: whoever is acknowledged would only join them at the end. On a slow
//! one, whoever was just acknowledged often comes back at once with the next commit. If the next sync began without it, each
//! would wait for two syncs, in two parties that take turns. So a sync waits for them, but for a part of its own time.
//! PostgreSQL has the same, set by hand, as `commit_delay` and `commit_siblings`.

use super::sync::Commit;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Below this a sync is too quick for those who were acknowledged to be worth waiting for.
const SLOW: Duration = Duration::from_millis(1);

/// How many transactions have to wait for the writer for a pause before a quick sync, and how long that is: for each of them
/// less than it takes, and no longer than anybody would notice.
const QUEUE: usize = 4;
const PAUSE_EACH: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// The parts of a sync's time that are waited for company at most: in all, and since the last that came.
const PATIENCE: u32 = 2;
const GAP: u32 = 8;

/// Gathers commits for a sync.
pub(super) struct Company {
    /// How long a sync takes, by the last ones.
    sync_time: Duration,
    /// How many of those that were acknowledged last may still come back.
    away: usize,
    acknowledged: Instant,
    /// Sleeps.
    pause: Box<dyn Fn(Duration)>,
}

impl Company {
    pub(super) fn new(pause: impl Fn(Duration) + 'static) -> Self {
        Self {
            sync_time: Duration::ZERO,
            away: 0,
            acknowledged: Instant::now(),
            pause: Box::new(pause),
        }
    }

    /// Waits for commits, and returns those that the next sync is for; `None` when there will be no more.
    /// `waiting` says how many transactions wait for the writer.
    pub(super) fn next(
        &mut self,
        commits: &Receiver<Commit>,
        waiting: impl Fn() -> usize,
    ) -> Option<Vec<Commit>> {
        // What is there already waited for the last sync: it is from others.
        let mut group: Vec<_> = commits.try_iter().collect();
        if group.is_empty() {
            group.push(commits.recv().ok()?);
            group.extend(commits.try_iter());
            self.came(&group);
        }
        if !group.iter().any(|commit| commit.durable) {
            return Some(group);
        }
        if self.sync_time < SLOW {
            let waiting = waiting();
            if waiting >= QUEUE {
                let each = u32::try_from(waiting).unwrap_or(u32::MAX);
                (self.pause)(PAUSE_EACH.saturating_mul(each).min(PAUSE_MAX));
                group.extend(commits.try_iter());
            }
            return Some(group);
        }
        let until = self.acknowledged + self.sync_time / PATIENCE;
        while self.away > 0 {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(commit) = commits.recv_timeout(left.min(self.sync_time / GAP)) else {
                break;
            };
            self.came(std::slice::from_ref(&commit));
            group.push(commit);
        }
        Some(group)
    }

    /// A sync took this long.
    pub(super) fn synced(&mut self, took: Duration) {
        // A single one that was held up says little.
        self.sync_time = (self.sync_time * 3 + took) / 4;
    }

    /// These are acknowledged now.
    pub(super) fn acknowledged(&mut self, group: &[Commit]) {
        self.away = acks(group);
        self.acknowledged = Instant::now();
    }

    fn came(&mut self, group: &[Commit]) {
        self.away = self.away.saturating_sub(acks(group));
    }
}

fn acks(group: &[Commit]) -> usize {
    group.iter().map(|commit| commit.acks.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    /// Long enough for a thread to come back within a part of it.
    const SYNC: Duration = Duration::from_secs(20);

    fn commit(durable: bool) -> Commit {
        Commit {
            durable,
            acks: vec![Box::new(|| {})],
            stored: Vec::new(),
        }
    }

    /// Company on a disk that takes so long for a sync, and a way to commit.
    fn company(sync: Duration) -> (Company, Sender<Commit>, Receiver<Commit>) {
        let (sender, commits) = channel();
        let mut company = Company::new(|_| {});
        company.synced(sync * 4);
        (company, sender, commits)
    }

    /// Acknowledges one commit while another waits, and returns how many the next sync is for if the first comes back.
    fn next_after_return(sync: Duration, durable: bool) -> usize {
        let (mut company, sender, commits) = company(sync);
        company.acknowledged(&[commit(true)]);
        sender.send(commit(durable)).unwrap();
        let returning = thread::spawn(move || {
            // Not before the other one was found to wait alone.
            thread::yield_now();
            let _ = sender.send(commit(true));
        });
        let first = company.next(&commits, || 0).unwrap().len();
        returning.join().unwrap();
        first
    }

    #[test]
    fn slow_sync_waits_for_who_was_just_acknowledged() {
        assert_eq!(next_after_return(SYNC, true), 2);
    }

    #[test]
    fn quick_sync_waits_for_who_commits_meanwhile_if_many_wait_for_the_writer() {
        for (waiting, expected) in [(QUEUE, 2), (QUEUE - 1, 1)] {
            let (sender, commits) = channel();
            sender.send(commit(true)).unwrap();
            let mut company = Company::new(move |_| drop(sender.send(commit(true))));
            let group = company.next(&commits, || waiting).unwrap();
            assert_eq!(group.len(), expected);
        }
    }

    #[test]
    fn nobody_waits_for_those_who_do_not_come_back_or_for_a_quick_disk() {
        for sync in [Duration::from_micros(100), SLOW * 2] {
            let (mut company, sender, commits) = company(sync);
            company.acknowledged(&[commit(true)]);
            sender.send(commit(true)).unwrap();
            assert_eq!(company.next(&commits, || 0).unwrap().len(), 1);
        }
    }

    #[test]
    fn nothing_more_comes_once_nobody_can_commit() {
        let (mut company, sender, commits) = company(SYNC);
        sender.send(commit(true)).unwrap();
        drop(sender);
        assert_eq!(company.next(&commits, || 0).unwrap().len(), 1);
        assert!(company.next(&commits, || 0).is_none());
    }

    #[test]
    fn commits_that_need_no_sync_wait_for_nobody() {
        let (mut company, sender, commits) = company(SYNC);
        company.acknowledged(&[commit(true)]);
        sender.send(commit(false)).unwrap();
        assert_eq!(company.next(&commits, || 0).unwrap().len(), 1);
    }
}
