//! The servers that keep the locks of a space: one, or several that know nothing of each other, of which a majority decides.
//!
//! A lock is had by whoever has it in a majority. Its token is the highest that one of these servers gave, and is noted in a
//! majority, as long as the lock is its owner's there, before anybody learns of it. So the next owner, who has the lock in a
//! majority, too, meets it in at least one server, and gets a higher one there, whatever the clocks do.

mod calls;

use super::address::Address;
use super::line::{ANSWER_MAX, Line};
use super::majority::{Count, Heard, Said, Tally};
use super::names::Names;
use super::scripts::Scripts;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::ipc::Reach;
use crate::state::BoxFuture;
use crate::state::lock::Acquire;
use crate::state::lock::leased::ledger::{Answer, Identity, Ledger};
use crate::state::lock::leased::waiting::Waiting;
use crate::state::presence::Connections;
use futures_util::StreamExt as _;
use futures_util::future::{join, join_all, select_all};
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue, ScriptInvocation};
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// How long one of several servers may take to answer: a part of the lease, within these.
const PATIENCE_PART: u32 = 4;
const PATIENCE_MIN: Duration = Duration::from_millis(100);
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// How long answers are waited for that decide nothing any more.
const LATE_MAX: Duration = Duration::from_millis(10);

/// The servers.
pub(in crate::state) struct Nodes {
    names: Names,
    scripts: Scripts,
    nodes: Vec<Line>,
    waiting: Waiting,
    /// To which servers something was sent that gives an owner its locks.
    sent: RefCell<HashMap<String, Vec<bool>>>,
    /// What keeps the lines up; it ends with this.
    keepers: RefCell<JoinSet<()>>,
}

impl Nodes {
    /// Takes servers that are somewhere, an odd number; nobody is asked yet whether they are there.
    pub(in crate::state) fn new(space: &str, addresses: Vec<Address>, identity: Identity) -> Self {
        let names = Names::new(space, identity);
        let (waiting, scripts) = (Waiting::default(), Scripts::default());
        let line = |address: Address| {
            let channel = names.channel(address.login.db());
            let (waiting, prefix) = (waiting.clone(), names.prefix());
            let on_news = move |lock: &str| {
                if let Some(key) = lock.strip_prefix(&prefix) {
                    waiting.wake(key);
                }
            };
            let name = format!("lock.{space}");
            Line::new(name, address, channel, scripts.all(), Box::new(on_news))
        };
        Self {
            nodes: addresses.into_iter().map(line).collect(),
            names,
            scripts,
            waiting,
            sent: RefCell::default(),
            keepers: RefCell::default(),
        }
    }

    fn count(&self) -> Count {
        Count(self.nodes.len())
    }

    /// Tells whether there are several.
    fn is_plural(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Returns how long an answer about a lease of this length is waited for.
    fn patience(&self, ttl: Duration) -> Duration {
        match self.is_plural() {
            true => (ttl / PATIENCE_PART).clamp(PATIENCE_MIN, PATIENCE_MAX),
            false => ANSWER_MAX,
        }
    }

    /// Asks some servers at once, until it is decided and those that answer about as fast were heard, too: on whichever of
    /// them a lock is known to be, that one may be missed.
    async fn ask<T: FromRedisValue>(
        &self,
        nodes: impl IntoIterator<Item = usize>,
        question: &ScriptInvocation<'_>,
        patience: Duration,
        is_decided: impl Fn(&Tally<T>) -> bool,
    ) -> Tally<T> {
        let ask_one = |node: usize| {
            let line = &self.nodes[node];
            async move {
                let Some(connection) = line.presence().number() else {
                    return Heard::Away(line.presence().why_away().unwrap_or_default());
                };
                match timeout(patience, line.run::<T>(question)).await {
                    Ok(Ok(what)) => Heard::Said(Said {
                        node,
                        connection,
                        what,
                    }),
                    Ok(Err(why)) => Heard::Silent(why),
                    Err(_) => Heard::Silent("it does not answer".to_owned()),
                }
            }
        };
        let mut asked: FuturesUnordered<_> = nodes.into_iter().map(ask_one).collect();
        let mut tally = Tally::new(asked.len());
        let mut end = None;
        loop {
            let next = async {
                match end {
                    Some(end) => timeout_at(end, asked.next()).await.ok().flatten(),
                    None => asked.next().await,
                }
            };
            let Some(heard) = next.await else {
                break;
            };
            tally.hear(heard);
            if end.is_none() && is_decided(&tally) {
                end = Some(Instant::now() + LATE_MAX);
            }
        }
        tally
    }

    fn all(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    /// Returns the connections of those who said yes.
    fn said_on(&self, yes: impl Iterator<Item = (usize, u64)>) -> Connections {
        let mut connections = vec![None; self.nodes.len()];
        for (node, connection) in yes {
            connections[node] = Some(connection);
        }
        Connections(connections)
    }

    /// Notes to which servers something is sent now: to those that are here.
    fn note_sent(&self, to: &mut Vec<bool>) {
        to.resize(self.nodes.len(), false);
        for (sent, line) in to.iter_mut().zip(&self.nodes) {
            *sent |= line.presence().number().is_some();
        }
    }

    async fn connect(&self, is_again: bool) -> Result<(), Failure> {
        if !self.keepers.borrow().is_empty() {
            return Ok(());
        }
        let connected = join_all(self.nodes.iter().map(Line::connect)).await;
        let here = connected.iter().filter(|it| it.is_ok()).count();
        let space = self.names.space();
        let mut away: Tally<()> = Tally::new(self.nodes.len());
        let whys = connected.iter().filter_map(|it| it.as_ref().err());
        whys.for_each(|why| away.hear(Heard::Away(why.clone())));
        if here < self.count().majority() && !is_again {
            let what = format!("lock space {space}: Redis: {}", away.why());
            return Err(Failure::new(ExitCode::Unavailable, what).hint(format!(
                "check the binding lock.{space}, and that Redis or Valkey runs there"
            )));
        }
        for (line, connected) in self.nodes.iter().zip(connected) {
            // At the first start `wrun ps` says so: the URL is the first line on stderr.
            if let Err(why) = &connected
                && is_again
            {
                let node = line.place();
                tracing::warn!(lock = space, node, why, "goes on without this server");
            }
            let live = connected.ok();
            if let Some(live) = &live {
                line.is_here(live);
            }
            let keep = line.clone().keep(live);
            self.keepers.borrow_mut().spawn_local(keep);
        }
        Ok(())
    }
}

impl Ledger for Nodes {
    fn product(&self) -> &'static str {
        "Redis"
    }

    fn identity(&self) -> &Identity {
        &self.names.identity
    }

    fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    fn prepare(&self, is_again: bool) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.connect(is_again))
    }

    fn reach(&self) -> Reach {
        let mut away: Tally<()> = Tally::new(self.nodes.len());
        let whys = self.nodes.iter().filter_map(|it| it.presence().why_away());
        whys.for_each(|why| away.hear(Heard::Away(why)));
        let here = away.open();
        match here < self.count().majority() {
            true => Reach::Away(away.why()),
            false if here < self.nodes.len() => Reach::Partly(away.why()),
            false => Reach::Here,
        }
    }

    fn connections(&self) -> Connections {
        let numbers = self.nodes.iter().map(|line| line.presence().number());
        Connections(numbers.collect())
    }

    fn confirms(&self, said_on: &Connections) -> bool {
        said_on.alive(&self.connections()) >= self.count().majority()
    }

    fn changed_since(&self, known: Connections) -> BoxFuture<'_, ()> {
        let both = self.nodes.iter().zip(known.0);
        let changes = both.map(|(line, number)| Box::pin(line.presence().is_other_than(number)));
        let changes: Vec<_> = changes.collect();
        Box::pin(async move { drop(select_all(changes).await) })
    }

    fn take<'a>(
        &'a self,
        owner: &'a str,
        request: &'a Acquire,
    ) -> BoxFuture<'a, Result<Answer, String>> {
        Box::pin(self.try_to_take(owner, request))
    }

    fn extend<'a>(
        &'a self,
        owner: &'a str,
        keys: &'a [String],
        by: Duration,
    ) -> BoxFuture<'a, Result<Option<Connections>, String>> {
        Box::pin(self.prolong(owner, keys, by))
    }

    fn release<'a>(
        &'a self,
        owner: &'a str,
        keys: &'a [String],
        gone: Instant,
        answer: oneshot::Sender<Option<bool>>,
    ) -> BoxFuture<'a, ()> {
        let (first, mut firsts) = mpsc::unbounded_channel();
        let (Count(count), majority) = (self.count(), self.count().majority());
        let sent = self.sent.borrow_mut().remove(owner).unwrap_or_default();
        let each = self.nodes.iter().zip(sent);
        let each = each.map(move |there| self.release_at(there, owner, keys, gone, first.clone()));
        let each = join_all(each);
        let tell = async move {
            let (mut had, mut had_not) = (0, 0);
            let mut known = None;
            for _ in 0..count {
                match firsts.recv().await.flatten() {
                    Some(true) => had += 1,
                    Some(false) => had_not += 1,
                    None => {}
                }
                if had >= majority || had_not > count - majority {
                    known = Some(had >= majority);
                    break;
                }
            }
            let _ = answer.send(known);
        };
        Box::pin(async move { drop(join(each, tell).await) })
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        let each = self.nodes.iter().map(|line| self.sweep_at(line));
        Box::pin(async move { drop(join_all(each).await) })
    }
}
