//! Power cuts at thousands of moments: what the disk may then hold must be a database with all that was acknowledged.
//!
//! The engine is used under a VFS that records every change and every sync of its files, in one order with what its users
//! were told. A cut at a point of this record leaves an image, which plain SQLite opens.
//!
//! The disk: what a sync covers is what was done to the file before the sync began, and only from when it ended. Of what
//! was done since, each change is kept, lost or torn, whatever became of others, and in whichever file: of a torn write each
//! sector of 512 bytes is kept or lost, and the growth of the file, too, where zeros then stand. A sector is written whole or
//! not at all, and leaves its neighbours alone, as SQLite assumes (`SQLITE_IOCAP_POWERSAFE_OVERWRITE`). That a file was
//! made is on the disk once the file was synced; which files there are, also once SQLite has synced the folder, as it does
//! with the first sync of a log or a journal. So a deleted journal may be back. Shared memory is never there.
//!
//! A record goes over several lives of the engine. Between two of them the machine lost its power, or only the process was
//! killed: then the next one sees all that the last one did, and still none of it need be on the disk.
//!
//! How the threads take turns differs from run to run, so that a seed repeats the kind of a history, not the history. What
//! fails is kept in a folder.

mod disk;
mod known;
mod life;
mod random;
mod tape;
mod vfs;

use disk::{Disk, write_image};
use known::Known;
use life::{Flaw, Load, live};
use random::Random;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use tape::{Event, File};
use tempfile::TempDir;

/// Cuts of an ordinary run; `WRUN_POWER_CUTS` is another number.
const CUTS: u64 = 10_000;
/// In how many cuts a flaw has to show.
const CONTROL_CUTS: u64 = 2000;

/// What most histories are like.
const ORDINARY: Kind = Kind {
    load: Load::Many,
    flaw: Flaw::None,
    lives: 3,
    cuts: 100,
};

#[test]
fn acknowledged_commits_survive_a_power_cut_at_any_moment() {
    let cuts = match std::env::var("WRUN_POWER_CUTS") {
        Ok(cuts) => cuts.parse().expect("WRUN_POWER_CUTS is a number"),
        Err(_) => CUTS,
    };
    assert_eq!(run(cuts, ORDINARY), None);
}

#[test]
fn commits_beside_very_large_ones_survive_a_power_cut() {
    let kind = Kind {
        load: Load::Large,
        lives: 2,
        cuts: 20,
        ..ORDINARY
    };
    assert_eq!(run(40, kind), None);
}

#[test]
fn commits_that_are_acknowledged_before_they_are_synced_are_noticed() {
    let flaw = Flaw::NoSync;
    let fault = run(CONTROL_CUTS, Kind { flaw, ..ORDINARY });
    let fault = fault.expect("something that was acknowledged is lost");
    assert!(fault.contains("is not there"), "{fault}");
}

#[test]
fn checkpoints_that_do_not_sync_are_noticed() {
    let flaw = Flaw::LooseCheckpoints;
    assert_ne!(run(CONTROL_CUTS, Kind { flaw, ..ORDINARY }), None);
}

/// What a history is like.
#[derive(Clone, Copy)]
struct Kind {
    load: Load,
    flaw: Flaw,
    /// Lives of the engine, and cuts in each of them.
    lives: i64,
    cuts: usize,
}

/// Makes histories until there were so many cuts, on all cores, and returns the first fault.
fn run(cuts: u64, kind: Kind) -> Option<String> {
    let histories = cuts.div_ceil(kind.lives as u64 * kind.cuts as u64);
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= histories {
                return None;
            }
            if let Err(fault) = History::new(seed, kind).run() {
                next.store(histories, Ordering::Relaxed);
                return Some(fault);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let working: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let faults = working.into_iter().map(|thread| thread.join().unwrap());
        // All of them are waited for.
        faults.reduce(Option::or)?
    })
}

/// What there is at a point of a record.
#[derive(Clone, Default)]
struct World {
    disk: Disk,
    known: Known,
}

/// Some lives of a database.
struct History {
    seed: u64,
    kind: Kind,
    random: Random,
    world: World,
}

impl History {
    fn new(seed: u64, kind: Kind) -> Self {
        Self {
            seed,
            kind,
            random: Random::new(seed),
            world: World::default(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let Kind { load, flaw, .. } = self.kind;
        for life in 0..self.kind.lives {
            let folder = tempfile::tempdir().unwrap();
            write_image(&self.world.disk.seen(), folder.path()).unwrap();
            let events = live(folder.path(), life, load, flaw, &mut self.random);
            let known = self.world.known.len();
            self.replay(&events, life)?;
            assert!(self.world.known.len() > known, "nobody was told anything");
        }
        Ok(())
    }

    /// Goes through a record and tries cuts; then the world is as at some point in the second half of it.
    fn replay(&mut self, events: &[Event], life: i64) -> Result<(), String> {
        let cuts = self.draw_cuts(events);
        let end = events.len() / 2 + self.random.index(events.len() / 2);
        let mut next = None;
        let mut cuts = cuts.into_iter().peekable();
        for (at, event) in events.iter().enumerate() {
            while cuts.next_if_eq(&at).is_some() {
                self.try_cut(life, at, event)?;
            }
            if at == end {
                next = Some(self.world.clone());
            }
            self.world.disk.apply(at, event);
            if let Event::Told(fact) = event {
                self.world.known.learn(*fact);
            }
        }
        if let Some(World { disk, known }) = next {
            let disk = if self.random.one_in(2) {
                Disk::after_cut(disk.cut(&mut self.random).0)
            } else {
                disk.after_kill()
            };
            self.world = World { disk, known };
        }
        Ok(())
    }

    /// Returns the numbers of events before which to cut, in order: many where something could just have gone wrong.
    fn draw_cuts(&mut self, events: &[Event]) -> Vec<usize> {
        let (mut after_told, mut before_synced) = (Vec::new(), Vec::new());
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::Told(_) if at + 1 < events.len() => after_told.push(at + 1),
                Event::Synced { .. } => before_synced.push(at),
                _ => {}
            }
        }
        let everywhere: Vec<_> = (0..events.len()).collect();
        let places = [after_told, before_synced, everywhere];
        let mut cuts: Vec<_> = (0..self.kind.cuts)
            .map(|turn| {
                let places = &places[turn % places.len()];
                places[self.random.index(places.len())]
            })
            .collect();
        cuts.sort_unstable();
        cuts
    }

    fn try_cut(&mut self, life: i64, at: usize, event: &Event) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let (image, how) = self.world.disk.cut(&mut self.random);
        write_image(&image, folder.path()).unwrap();
        let path = folder.path().join(File::Database.name());
        let checked = self.world.known.check(&path);
        checked.map_err(|fault| {
            let seed = self.seed;
            let mut place = format!("{event:?}");
            place.truncate(100);
            let place = format!("history {seed}, life {life}, before event {at} ({place})");
            format!("{place}: {how}: {fault}{}", self.keep(folder))
        })
    }

    /// Keeps a folder for whoever looks for the reason, if there should be none.
    fn keep(&self, folder: TempDir) -> String {
        match self.kind.flaw {
            Flaw::None => format!("; see {}", folder.keep().display()),
            Flaw::NoSync | Flaw::LooseCheckpoints => String::new(),
        }
    }
}
