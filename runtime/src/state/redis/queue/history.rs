//! Random histories of a queue that two servers share, on a real Redis, beside a plain model of it: who may claim what, and how
//! the queue stands.

use super::tests::{part, settings, test};
use super::*;
use crate::state::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use wrun_tests::redis::Redis;

const STEPS: usize = 600;

/// More than there are: a claim takes all that can be claimed.
const ALL: u64 = 400;

/// A message as the model has it.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    key: Option<&'static str>,
    attempts: u32,
    /// The server that holds it.
    held: Option<usize>,
    is_dead: bool,
}

struct History<'a> {
    dice: Dice,
    redis: &'a Redis,
    servers: [Rc<Store>; 2],
    model: BTreeMap<i64, Kept>,
}

/// Plays a history, in which a message that waits behind its key may be let out by mistake; the error is what was wrong.
async fn play(redis: &Redis, seed: u64, is_broken: bool) -> Result<(), String> {
    redis.call(&["FLUSHALL"]);
    let mut tasks = JoinSet::new();
    let mut server = async |name: &str| {
        let address = Address::parse(&redis.url(0)).unwrap();
        let queue = RedisQueue::new("jobs", &settings(), address, name, Rc::new(|_, _| {}));
        let store = queue.store.clone();
        let live = store.line.first("queue jobs", false).await.unwrap();
        tasks.spawn_local(store.line.clone().keep(live));
        store.holder.replace(Some(store.hold().await.unwrap()));
        store
    };
    let mut history = History {
        dice: Dice::Seeded(seed),
        redis,
        servers: [server("a").await, server("b").await],
        model: BTreeMap::new(),
    };
    for step in 0..STEPS {
        if is_broken && step % 10 == 9 {
            history.let_out_by_mistake();
        }
        let done = history.step().await;
        done.and(history.check().await)
            .map_err(|what| format!("step {step}: {what}"))?;
    }
    Ok(())
}

impl History<'_> {
    /// Returns what can be claimed.
    fn claimable(&self) -> BTreeSet<i64> {
        let mut keys = BTreeSet::new();
        let live = self.model.iter().filter(|(_, it)| !it.is_dead);
        let busy = live.clone().filter(|(_, it)| it.held.is_some());
        keys.extend(busy.filter_map(|(_, it)| it.key));
        let free = live.filter(|(_, it)| it.held.is_none());
        let first = free.filter(|(_, it)| it.key.is_none_or(|key| keys.insert(key)));
        first.map(|(&id, _)| id).collect()
    }

    /// Returns one that is held by this server.
    fn held_by(&mut self, server: usize) -> Option<i64> {
        let held = self.model.iter().filter(|(_, it)| it.held == Some(server));
        let held: Vec<i64> = held.map(|(&id, _)| id).collect();
        self.dice.pick(&held)
    }

    async fn step(&mut self) -> Result<(), String> {
        let server = self.dice.below(2) as usize;
        match self.dice.below(16) {
            0..4 => self.send(server).await,
            4..8 => self.claim(server).await?,
            8..13 => self.settle(server).await,
            13 => self.operate(server).await,
            14 => self.end(server).await,
            _ => self.tell_of_another(server).await,
        }
        Ok(())
    }

    async fn send(&mut self, server: usize) {
        let keys = [None, Some(""), Some("a"), Some("ab")];
        let chosen: Vec<_> = (0..=self.dice.below(3))
            .map(|_| keys[self.dice.below(4) as usize])
            .collect();
        let message = |key: &Option<&str>| Message {
            key: key.map(str::to_owned),
            ..Message::default()
        };
        let messages: Vec<_> = chosen.iter().map(message).collect();
        let ids = self.servers[server].send(&messages).await.unwrap();
        for (id, key) in ids.iter().zip(chosen) {
            let kept = Kept {
                key,
                attempts: 0,
                held: None,
                is_dead: false,
            };
            self.model
                .insert(sharing::inside("jobs", id).unwrap(), kept);
        }
    }

    async fn claim(&mut self, server: usize) -> Result<(), String> {
        let most = if self.dice.one_in(3) { 1 } else { ALL };
        let store = &self.servers[server];
        store.wanted.set((most, most));
        let holder = store.holder.borrow().clone().unwrap();
        let claimed = store.claim(&holder, false).await.unwrap().unwrap();
        let can = self.claimable();
        let taken: BTreeSet<i64> = claimed.entries.iter().map(|it| it.id).collect();
        if !taken.is_subset(&can) || taken.len() < can.len().min(most as usize) {
            return Err(format!("took {taken:?} of {can:?}: {:?}", self.model));
        }
        for entry in claimed.entries {
            let kept = self.model.get_mut(&entry.id).unwrap();
            if (entry.key.as_deref(), entry.attempts) != (kept.key, kept.attempts) {
                return Err(format!("{entry:?} is {kept:?}"));
            }
            kept.held = Some(server);
        }
        Ok(())
    }

    async fn settle(&mut self, server: usize) {
        let Some(id) = self.held_by(server) else {
            return;
        };
        let change = self.outcome(id);
        let kept = self.model.get_mut(&id).unwrap();
        kept.held = None;
        match &change {
            Change::Remove { .. } => drop(self.model.remove(&id)),
            Change::Retry { attempts, .. } => kept.attempts = *attempts,
            Change::Dead { attempts, .. } => {
                kept.attempts = *attempts;
                kept.is_dead = true;
            }
        }
        self.servers[server].write(&[change]).await.unwrap();
    }

    /// A server says what became of a message that another one holds.
    async fn tell_of_another(&mut self, server: usize) {
        let Some(id) = self.held_by(1 - server) else {
            return;
        };
        let change = self.outcome(id);
        self.servers[server].write(&[change]).await.unwrap();
    }

    fn outcome(&mut self, id: i64) -> Change {
        let attempts = self.model[&id].attempts + 1;
        match self.dice.below(3) {
            0 => Change::Remove { id },
            1 => Change::Retry {
                id,
                attempts,
                ready_at_ms: 0,
                alone: self.dice.one_in(2),
            },
            _ => Change::Dead {
                id,
                attempts,
                reason: "why".to_owned(),
            },
        }
    }

    async fn operate(&mut self, server: usize) {
        let (what, count) = (self.dice.below(6), 1 + self.dice.below(3) as usize);
        let store = &self.servers[server];
        match what {
            0 => {
                store.purge(false).await.unwrap();
                self.model.retain(|_, it| it.is_dead || it.held.is_some());
            }
            1 => {
                store.purge(true).await.unwrap();
                self.model.retain(|_, it| !it.is_dead);
            }
            _ => {
                store.redrive(count as u32).await.unwrap();
                let dead = self.model.values_mut().filter(|it| it.is_dead);
                for kept in dead.take(count) {
                    kept.is_dead = false;
                    kept.attempts = 0;
                }
            }
        }
    }

    /// A server ends: its state process is replaced, or it is gone and another one notices.
    async fn end(&mut self, server: usize) {
        let is_gone = self.dice.one_in(2);
        let store = &self.servers[server];
        if is_gone {
            let holder = store.holder.borrow().clone().unwrap();
            self.redis.call(&["ZADD", &part("leases"), "1", &holder]);
            assert!(self.servers[1 - server].reap().await.unwrap());
            assert!(!store.renew(&holder).await.unwrap());
        }
        store.holder.replace(Some(store.hold().await.unwrap()));
        store.claims.take();
        let held = self.model.values_mut();
        for kept in held.filter(|it| it.held == Some(server)) {
            kept.held = None;
            kept.attempts += u32::from(is_gone);
        }
    }

    fn let_out_by_mistake(&self) {
        let can = self.claimable();
        let waits = |(id, it): &(&i64, &Kept)| {
            !it.is_dead && it.held.is_none() && it.key.is_some() && !can.contains(id)
        };
        if let Some((id, _)) = self.model.iter().find(waits) {
            self.redis
                .call(&["ZADD", &part("due"), "0", &id.to_string()]);
        }
    }

    async fn check(&self) -> Result<(), String> {
        let count =
            |is_so: fn(&Kept) -> bool| self.model.values().filter(|it| is_so(it)).count() as u64;
        let expected = QueueStatus {
            queue: "jobs".to_owned(),
            messages: count(|it| !it.is_dead),
            ready: self.claimable().len() as u64,
            in_flight: count(|it| it.held.is_some()),
            dead: count(|it| it.is_dead),
            ..QueueStatus::default()
        };
        let status = self.servers[0].status().await.unwrap();
        let status = QueueStatus {
            oldest_ms: 0,
            ..status
        };
        match status == expected {
            true => Ok(()),
            false => Err(format!("{status:?} and not {expected:?}")),
        }
    }
}

#[test]
fn claims_of_two_servers_are_those_of_the_model() {
    test(async |redis| {
        for seed in 0..5 {
            assert_eq!(play(redis, seed, false).await, Ok(()), "seed {seed}");
        }
    });
}

#[test]
fn check_notices_a_message_that_is_let_out_before_its_turn() {
    test(async |redis| {
        assert!(play(redis, 1, true).await.is_err());
    });
}
