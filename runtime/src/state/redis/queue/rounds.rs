//! The rounds of a server: it renews its lease, gives back what others held that are gone, and claims what is wanted, for as
//! long as Redis is there; and waits for it while it is not.
//!
//! Whoever has sent or given back messages rings. That is told elsewhere by the next claim, if something is left after it.

use super::Store;
use crate::state::queue::desk::Desk;
use crate::state::queue::sharing::{CLAIMS_MAX, LEASE, PAUSE, POLL, RENEW, SWEEP, is_due};
use crate::state::redis::line::Failed;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is due, and when.
struct Rounds {
    store: Rc<Store>,
    desk: Rc<Desk>,
    renew_at: Cell<Instant>,
    sweep_at: Cell<Instant>,
    reap_at: Cell<Instant>,
    /// What was claimed while it was being written what became of it before.
    late: RefCell<Vec<i64>>,
}

/// Makes the rounds for as long as it is polled.
pub(super) async fn keep(store: Rc<Store>, desk: Rc<Desk>) {
    let now = Instant::now();
    let rounds = Rounds {
        store: store.clone(),
        desk,
        renew_at: Cell::new(now),
        sweep_at: Cell::new(now),
        reap_at: Cell::new(now),
        late: RefCell::default(),
    };
    let presence = store.line.presence();
    let mut connection = None;
    loop {
        presence.back().await;
        let number = presence.number();
        if number != connection {
            rounds.begin_anew();
            connection = number;
        }
        match rounds.make().await {
            Ok(next) => {
                // All ways there is something to look at.
                tokio::select! {
                    () = sleep(next.min(POLL)) => {}
                    () = store.bell.work.notified() => {}
                    () = store.news.notified() => {}
                    () = presence.is_other_than(number) => {}
                }
            }
            Err(failed) => {
                if !matches!(failed, Failed::Away(_)) {
                    tracing::warn!(queue = store.label, %failed, "messages cannot be claimed, trying again");
                }
                // What was claimed may not have been told.
                rounds.sweep_at.set(Instant::now());
                sleep(PAUSE).await;
            }
        }
    }
}

impl Rounds {
    /// There is another connection: the lease is renewed first, and others get the time to do so, who had none either.
    fn begin_anew(&self) {
        let now = Instant::now();
        self.renew_at.set(now);
        self.sweep_at.set(now);
        self.reap_at.set(now + LEASE);
    }

    /// Does what is due, and claims what is wanted. Returns when to look again if nobody rings.
    async fn make(&self) -> Result<Duration, Failed> {
        let store = &self.store;
        let holder = self.hold().await?;
        if is_due(&self.reap_at, POLL) && store.reap().await? {
            tracing::warn!(
                queue = store.label,
                "another server is gone, its messages come back"
            );
            store.bell.ring();
        }
        if is_due(&self.sweep_at, SWEEP) {
            self.sweep(&holder).await?;
        }
        let tells = store.bell.tells();
        let mut next = None;
        if tells || store.wanted.get().0 > 0 {
            let claimed = self.claim_all(&holder, tells).await;
            if claimed.is_err() && tells {
                store.bell.ring();
            }
            // What nobody here wants is not waited for.
            next = claimed?.filter(|_| store.wanted.get().0 > 0);
        }
        let to_sweep = self
            .sweep_at
            .get()
            .saturating_duration_since(Instant::now());
        Ok(next.unwrap_or(POLL).min(to_sweep))
    }

    /// Gives back what is held here and not known.
    async fn sweep(&self, holder: &str) -> Result<(), Failed> {
        let Self { store, desk, .. } = self;
        if store.sweep(holder, &desk.known()).await? {
            store.bell.ring();
        }
        let known: HashSet<i64> = desk.known().into_iter().collect();
        store.claims.borrow_mut().retain(|id, _| known.contains(id));
        let mut late = self.late.borrow_mut();
        late.retain(|id| known.contains(id));
        if !late.is_empty() {
            self.sweep_at.set(Instant::now() + PAUSE);
        }
        Ok(())
    }

    /// Sees to it that there is a holder whose lease is good.
    async fn hold(&self) -> Result<String, Failed> {
        let store = &self.store;
        let holder = store.holder.borrow().clone();
        if let Some(holder) = holder {
            let is_good = !is_due(&self.renew_at, RENEW);
            if is_good || store.renew(&holder).await? {
                return Ok(holder);
            }
            self.lose();
        }
        let holder = store.hold().await?;
        self.renew_at.set(Instant::now() + RENEW);
        store.holder.replace(Some(holder.clone()));
        Ok(holder)
    }

    /// Nothing is held here any more.
    fn lose(&self) {
        tracing::warn!(
            queue = self.store.label,
            "the lease ran out: others handle what was handled here"
        );
        self.store.holder.take();
        self.store.claims.take();
        self.desk.lose();
    }

    /// Claims until there is no more, or no more is wanted. Returns how long until there may be some.
    async fn claim_all(&self, holder: &str, tells: bool) -> Result<Option<Duration>, Failed> {
        let Self { store, desk, .. } = self;
        let mut next = None;
        for _ in 0..CLAIMS_MAX {
            let Some(claimed) = store.claim(holder, tells).await? else {
                self.lose();
                store.bell.ring();
                return Ok(None);
            };
            let is_empty = claimed.entries.is_empty();
            next = claimed.next;
            let late = desk.add_claimed(claimed.entries);
            if !late.is_empty() {
                self.sweep_at.set(Instant::now() + PAUSE);
                self.late.borrow_mut().extend(late);
            }
            let is_wanted = store.wanted.get().0 > 0;
            if !is_wanted || is_empty || next != Some(Duration::ZERO) {
                break;
            }
        }
        Ok(next)
    }
}
