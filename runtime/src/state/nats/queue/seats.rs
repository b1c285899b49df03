//! Who has which shard, and what a server does about it: pure.
//!
//! Each server that takes messages says again and again that it is there; one that has not for as long as a lease is good is
//! gone, by the clock of whoever sees that. Each may have as many shards as the others, and takes those that nobody has, or
//! somebody who is gone. Nothing is decided here: what is written says which it has to come after.

use super::names::SHARDS;
use crate::state::queue::sharing::LEASE;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// Something as it was seen last.
#[derive(Clone, Debug)]
struct Seen {
    /// The number of its message.
    sequence: u64,
    value: String,
    at: Instant,
}

/// What is known of holders and shards.
#[derive(Debug, Default)]
pub(super) struct View {
    /// By their names, where each can be asked; nothing for one that is gone.
    holders: BTreeMap<String, Seen>,
    /// Who has them; nothing for one that was given back.
    shards: BTreeMap<u8, Seen>,
}

/// What a server knows of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    /// Its name as a holder.
    pub(super) holder: &'a str,
    /// What the names of its holders begin with, also of those before it.
    pub(super) server: &'a str,
    /// Whether it takes messages.
    pub(super) is_taking: bool,
    pub(super) shards: &'a BTreeSet<u8>,
}

/// What it does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Move {
    /// Removes a holder that is gone, if it is still the one that was seen.
    Bury { holder: String, sequence: u64 },
    /// Takes a shard, if it is still as it was seen.
    Take { shard: u8, sequence: u64 },
    /// Gives a shard back, once nothing of it is being handled.
    Release { shard: u8 },
}

impl View {
    /// Takes note of a holder. What was seen already is no sign of life.
    pub(super) fn note_holder(&mut self, name: &str, sequence: u64, value: String, now: Instant) {
        note(&mut self.holders, name.to_owned(), sequence, value, now);
    }

    pub(super) fn note_shard(&mut self, shard: u8, sequence: u64, value: String, now: Instant) {
        note(&mut self.shards, shard, sequence, value, now);
    }

    /// A holder was removed, as it was seen.
    pub(super) fn bury(&mut self, holder: &str, sequence: u64) {
        if self
            .holders
            .get(holder)
            .is_some_and(|it| it.sequence == sequence)
        {
            self.holders.remove(holder);
        }
    }

    /// It is looked anew: nobody could say that it is there, and gets the time to do so; and what was seen may never have been,
    /// if the server has lost its last messages.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Tells whether it is seen of all these shards that a holder has them.
    pub(super) fn has_all(&self, holder: &str, shards: &BTreeSet<u8>) -> bool {
        let has = |shard: &u8| {
            self.shards
                .get(shard)
                .is_some_and(|seen| seen.value == holder)
        };
        shards.iter().all(has)
    }

    /// Returns the number of what was seen last of a shard.
    pub(super) fn sequence(&self, shard: u8) -> u64 {
        self.shards.get(&shard).map_or(0, |seen| seen.sequence)
    }

    /// Returns where a holder can be asked.
    pub(super) fn place_of(&self, holder: &str) -> Option<&str> {
        self.holders.get(holder).map(|seen| seen.value.as_str())
    }

    /// Returns where the other holders that are there can be asked.
    pub(super) fn others(&self, own: Option<&str>, now: Instant) -> Vec<String> {
        let others = self
            .holders
            .iter()
            .filter(|(name, seen)| own != Some(name.as_str()) && seen.is_good(now));
        others.map(|(_, seen)| seen.value.clone()).collect()
    }

    /// Returns the shards that no holder has who is there.
    pub(super) fn free(&self, now: Instant) -> Vec<u8> {
        let is_held = |shard: &u8| {
            let holder = self.shards.get(shard).map(|seen| &seen.value);
            let holder = holder.and_then(|name| self.holders.get(name));
            holder.is_some_and(|seen| seen.is_good(now))
        };
        (0..SHARDS).filter(|shard| !is_held(shard)).collect()
    }

    /// Returns what a server has to do.
    pub(super) fn moves(&self, own: Own<'_>, now: Instant) -> Vec<Move> {
        let is_there = |name: &str, seen: &Seen| {
            name == own.holder || seen.is_good(now) && !name.starts_with(own.server)
        };
        let mut moves = Vec::new();
        let mut there = BTreeSet::from([own.holder]);
        for (name, seen) in &self.holders {
            if is_there(name, seen) {
                there.insert(name);
            } else {
                moves.push(Move::Bury {
                    holder: name.clone(),
                    sequence: seen.sequence,
                });
            }
        }
        let most = match own.is_taking {
            true => quota(&there, own.holder),
            false => 0,
        };
        let too_many = own.shards.len().saturating_sub(most);
        let given = own.shards.iter().rev().take(too_many);
        moves.extend(given.map(|&shard| Move::Release { shard }));
        let is_free = |shard: &u8| {
            let holder = self.shards.get(shard).map(|seen| seen.value.as_str());
            !own.shards.contains(shard)
                && holder.is_none_or(|name| !there.contains(name) || name == own.holder)
        };
        let room = most.saturating_sub(own.shards.len());
        let free = (0..SHARDS).filter(is_free).take(room);
        moves.extend(free.map(|shard| Move::Take {
            shard,
            sequence: self.sequence(shard),
        }));
        moves
    }
}

impl Seen {
    fn is_good(&self, now: Instant) -> bool {
        !self.value.is_empty() && now.saturating_duration_since(self.at) < LEASE
    }
}

fn note<K: Ord>(all: &mut BTreeMap<K, Seen>, key: K, sequence: u64, value: String, now: Instant) {
    let is_old = all.get(&key).is_some_and(|seen| seen.sequence >= sequence);
    if !is_old {
        let seen = Seen {
            sequence,
            value,
            at: now,
        };
        all.insert(key, seen);
    }
}

/// Returns how many shards one of several may have; of the shards that are left over, the first ones have one more.
fn quota(there: &BTreeSet<&str>, holder: &str) -> usize {
    let (shards, count) = (usize::from(SHARDS), there.len());
    let rank = there.iter().position(|it| *it == holder).unwrap_or(count);
    shards / count + usize::from(rank < shards % count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Several servers, each with what it sees, and what is written.
    struct World {
        now: Instant,
        last: u64,
        holders: BTreeMap<String, u64>,
        shards: BTreeMap<u8, (u64, String)>,
        servers: Vec<Server>,
    }

    struct Server {
        name: String,
        view: View,
        shards: BTreeSet<u8>,
        is_there: bool,
    }

    impl World {
        fn new(count: usize) -> Self {
            let server = |number: usize| Server {
                name: format!("s{number}-x"),
                view: View::default(),
                shards: BTreeSet::new(),
                is_there: true,
            };
            Self {
                now: Instant::now(),
                last: 0,
                holders: BTreeMap::new(),
                shards: BTreeMap::new(),
                servers: (0..count).map(server).collect(),
            }
        }

        /// All that are there renew, look and move, one after the other.
        fn round(&mut self) {
            self.now += Duration::from_secs(3);
            for at in 0..self.servers.len() {
                if self.servers[at].is_there {
                    self.turn(at);
                }
            }
        }

        fn turn(&mut self, at: usize) {
            let World {
                now,
                last,
                holders,
                shards,
                servers,
            } = self;
            let server = &mut servers[at];
            *last += 1;
            holders.insert(server.name.clone(), *last);
            for (name, sequence) in holders.iter() {
                server
                    .view
                    .note_holder(name, *sequence, "here".to_owned(), *now);
            }
            for (shard, (sequence, holder)) in shards.iter() {
                server
                    .view
                    .note_shard(*shard, *sequence, holder.clone(), *now);
            }
            let prefix = server.name.replace('x', "");
            let own = Own {
                holder: &server.name,
                server: &prefix,
                is_taking: true,
                shards: &server.shards,
            };
            for it in server.view.moves(own, *now) {
                match it {
                    Move::Bury { holder, sequence } => {
                        if holders.get(&holder) == Some(&sequence) {
                            holders.remove(&holder);
                        }
                        server.view.bury(&holder, sequence);
                    }
                    Move::Take { shard, sequence } => {
                        let written = shards.get(&shard).map_or(0, |it| it.0);
                        assert_eq!(written, sequence);
                        *last += 1;
                        shards.insert(shard, (*last, server.name.clone()));
                        server.shards.insert(shard);
                    }
                    Move::Release { shard } => {
                        *last += 1;
                        shards.insert(shard, (*last, String::new()));
                        server.shards.remove(&shard);
                    }
                }
            }
        }

        fn counts(&self) -> Vec<usize> {
            self.servers.iter().map(|it| it.shards.len()).collect()
        }

        fn assert_one_each(&self) {
            let there = self.servers.iter().filter(|it| it.is_there);
            let mut all: Vec<u8> = there.flat_map(|it| it.shards.clone()).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "a shard has two servers");
        }
    }

    #[test]
    fn servers_have_the_same_number_of_shards_and_no_shard_two_servers() {
        let mut world = World::new(3);
        world.servers[2].is_there = false;
        world.round();
        world.round();
        world.round();
        assert_eq!(world.counts(), [8, 8, 0]);
        world.servers[2].is_there = true;
        for _ in 0..4 {
            world.round();
            world.assert_one_each();
        }
        assert_eq!(world.counts(), [6, 5, 5]);
    }

    #[test]
    fn shards_of_a_server_that_is_gone_are_taken_only_when_its_lease_is_over() {
        let mut world = World::new(2);
        for _ in 0..3 {
            world.round();
        }
        world.servers[1].is_there = false;
        world.round();
        world.round();
        world.round();
        assert_eq!(world.counts(), [8, 8]);
        world.round();
        world.round();
        assert_eq!(world.counts()[0], 16);
        world.assert_one_each();
    }

    #[test]
    fn holder_of_the_same_server_before_is_gone_at_once() {
        let now = Instant::now();
        let mut view = View::default();
        view.note_holder("s-old", 1, "here".to_owned(), now);
        view.note_holder("other-old", 2, "here".to_owned(), now);
        view.note_shard(0, 3, "s-old".to_owned(), now);
        view.note_shard(1, 4, "other-old".to_owned(), now);
        let own = Own {
            holder: "s-new",
            server: "s-",
            is_taking: true,
            shards: &BTreeSet::new(),
        };
        let moves = view.moves(own, now);
        let bury = Move::Bury {
            holder: "s-old".to_owned(),
            sequence: 1,
        };
        assert!(
            moves.contains(&bury)
                && moves.contains(&Move::Take {
                    shard: 0,
                    sequence: 3
                })
        );
        assert!(
            !moves
                .iter()
                .any(|it| matches!(it, Move::Take { shard: 1, .. }))
        );
        // One that takes nothing has nothing.
        let all = BTreeSet::from([4]);
        let idle = Own {
            is_taking: false,
            shards: &all,
            ..own
        };
        assert_eq!(view.moves(idle, now)[1..], [Move::Release { shard: 4 }]);
    }

    #[test]
    fn nobody_is_gone_because_the_broker_was() {
        let begin = Instant::now();
        let mut view = View::default();
        view.note_holder("other-x", 1, "here".to_owned(), begin);
        view.note_shard(0, 2, "other-x".to_owned(), begin);
        let later = begin + LEASE * 2;
        assert_eq!(view.free(later).len(), usize::from(SHARDS));
        view.clear();
        view.note_holder("other-x", 1, "here".to_owned(), later);
        view.note_shard(0, 2, "other-x".to_owned(), later);
        assert!(!view.free(later).contains(&0));
        assert!(view.has_all("other-x", &BTreeSet::from([0])));
        assert!(!view.has_all("other-x", &BTreeSet::from([0, 1])));
        // What was seen before is no sign of life.
        view.note_holder("other-x", 1, "here".to_owned(), later + LEASE);
        assert!(view.others(None, later + LEASE).is_empty());
        view.note_holder("other-x", 5, "here".to_owned(), later + LEASE);
        assert_eq!(view.others(None, later + LEASE), ["here"]);
    }
}
