//! What is asked of the servers, and what their answers come to.

use super::{Line, Names, Nodes};
use crate::state::lock::Acquire;
use crate::state::lock::leased::ledger::{Answer, NEXT, RETRY};
use crate::state::presence::Connections;
use crate::state::redis::majority::{Count, Tally};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// The pause before it is tried again to release what was left behind.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);

impl Nodes {
    pub(super) async fn try_to_take(
        &self,
        owner: &str,
        request: &Acquire,
    ) -> Result<Answer, String> {
        let Names { identity, .. } = &self.names;
        let (locks, majority) = (self.names.locks(&request.keys), self.count().majority());
        let patience = self.patience(Duration::from_millis(request.ttl_ms.into()));
        let (fence, next, own) = (
            self.names.fence(),
            self.names.next(&request.keys),
            self.names.own(),
        );
        let mut acquire = self.scripts.acquire.prepare_invoke();
        acquire.key(&fence).key(&next).key(&own).key(&locks);
        acquire.arg(owner).arg(request.ttl_ms).arg(&identity.server);
        acquire.arg(u8::from(request.wait_ms > 0));
        acquire.arg(NEXT.as_millis() as u64);
        self.note_sent(self.sent.borrow_mut().entry(owner.to_owned()).or_default());
        let is_granted = |(token, _): &(u64, i64)| *token > 0;
        // Whoever is refused hears all of them, so as to know whether there is something to give back.
        let decided = |tally: &Tally<(u64, i64)>| tally.count(is_granted) >= majority;
        let tally = self.ask(self.all(), &acquire, patience, decided).await;
        let granted: Vec<_> = tally
            .said
            .iter()
            .filter(|it| is_granted(&it.what))
            .collect();
        let token = granted.iter().map(|it| it.what.0).max().unwrap_or(0);
        if granted.len() < majority {
            let refused = tally.said.iter().filter(|it| !is_granted(&it.what));
            let lefts = refused.map(|it| it.what.1);
            let left = lefts.filter_map(|left| u64::try_from(left).ok()).max();
            if tally.said.len() < majority {
                return Err(tally.why());
            }
            let is_partial = !granted.is_empty() || tally.is_uncertain();
            if !is_partial {
                self.sent.borrow_mut().remove(owner);
            }
            let left = left.map(Duration::from_millis);
            return Ok(Answer::Taken { left, is_partial });
        }
        if !self.is_plural() {
            let said_on = self.said_on(granted.iter().map(|it| (it.node, it.connection)));
            return Ok(Answer::Granted { token, said_on });
        }
        // Those that gave a token: the others may have given out higher ones since.
        let nodes = granted.iter().map(|it| it.node).collect();
        self.note_token(owner, &locks, token, nodes, patience).await
    }

    /// Notes a token in a majority, of these servers.
    async fn note_token(
        &self,
        owner: &str,
        locks: &[String],
        token: u64,
        nodes: Vec<usize>,
        patience: Duration,
    ) -> Result<Answer, String> {
        let (fence, majority) = (self.names.fence(), self.count().majority());
        let mut raise = self.scripts.raise.prepare_invoke();
        raise.key(&fence).key(locks).arg(owner).arg(token);
        let decided = |noted: &Tally<bool>| noted.count(|it| *it) >= majority;
        let noted = self.ask(nodes, &raise, patience, decided).await;
        let yes = noted.said.iter().filter(|it| it.what);
        let yes: Vec<_> = yes.map(|it| (it.node, it.connection)).collect();
        match yes.len() >= majority {
            true => Ok(Answer::Granted {
                token,
                said_on: self.said_on(yes.into_iter()),
            }),
            false if noted.said.len() < majority => Err(noted.why()),
            false => Ok(Answer::Taken {
                left: None,
                is_partial: true,
            }),
        }
    }

    pub(super) async fn prolong(
        &self,
        owner: &str,
        keys: &[String],
        by: Duration,
    ) -> Result<Option<Connections>, String> {
        let locks = self.names.locks(keys);
        let (Count(count), majority) = (self.count(), self.count().majority());
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let mut extend = self.scripts.extend.prepare_invoke();
        extend.key(&locks).arg(owner).arg(ms);
        let had = |what: &i64| *what == 1;
        let is_lost = |tally: &Tally<i64>| tally.count(|it| !had(it)) > count - majority;
        let decided = |tally: &Tally<i64>| tally.count(had) >= majority || is_lost(tally);
        let patience = self.patience(by);
        let tally = self.ask(self.all(), &extend, patience, decided).await;
        if tally.count(had) < majority {
            return match is_lost(&tally) {
                true => Ok(None),
                false => Err(tally.why()),
            };
        }
        let missing = tally.said.iter().filter(|it| it.what == -1);
        let missing: Vec<usize> = missing.map(|it| it.node).collect();
        if !missing.is_empty() {
            self.restore(owner, &locks, ms, missing, patience).await;
        }
        let had = tally.said.iter().filter(|it| had(&it.what));
        Ok(Some(self.said_on(had.map(|it| (it.node, it.connection)))))
    }

    /// Puts locks back in servers that were away or have forgotten them. They count from the next time on: whether somebody
    /// else had them there meanwhile, nobody knows.
    async fn restore(
        &self,
        owner: &str,
        locks: &[String],
        ms: u64,
        nodes: Vec<usize>,
        patience: Duration,
    ) {
        match self.sent.borrow_mut().get_mut(owner) {
            Some(sent) => self.note_sent(sent),
            // It was given back meanwhile.
            None => return,
        }
        let own = self.names.own();
        let mut restore = self.scripts.restore.prepare_invoke();
        restore.key(&own).key(locks).arg(owner).arg(ms);
        // If it fails there is a next time.
        self.ask(nodes, &restore, patience, |_: &Tally<bool>| false)
            .await;
    }

    /// Gives locks back in one server, if they can be there, until they are `gone`; tells once whether they all were the
    /// owner's, if that is known.
    pub(super) async fn release_at(
        &self,
        (line, is_there): (&Line, bool),
        owner: &str,
        keys: &[String],
        gone: Instant,
        first: mpsc::UnboundedSender<Option<bool>>,
    ) {
        if !is_there {
            let _ = first.send(Some(false));
            return;
        }
        let locks = self.names.locks(keys);
        let mut release = self.scripts.release.prepare_invoke();
        release.key(self.names.own()).key(&locks);
        release.arg(owner).arg(line.channel());
        let mut released = line.run::<usize>(&release).await;
        let _ = first.send(released.as_ref().ok().map(|own| *own == keys.len()));
        while released.is_err() && Instant::now() < gone {
            sleep(RETRY).await;
            tokio::select! {
                () = line.presence().back() => {}
                () = sleep_until(gone) => {}
            }
            released = line.run::<usize>(&release).await;
        }
    }

    pub(super) async fn sweep_at(&self, line: &Line) {
        let Names { identity, .. } = &self.names;
        loop {
            line.presence().back().await;
            let mut sweep = self.scripts.sweep.prepare_invoke();
            sweep.key(self.names.own()).arg(identity.of_server());
            sweep.arg(&identity.process).arg(line.channel());
            match line.run::<u64>(&sweep).await {
                Ok(0) => return,
                Ok(locks) => {
                    let space = self.names.space();
                    tracing::info!(lock = space, locks, "locks of before are released");
                    return;
                }
                Err(_) => sleep(SWEEP_PAUSE).await,
            }
        }
    }
}
