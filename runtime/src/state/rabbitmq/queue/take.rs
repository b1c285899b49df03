//! How messages come to be held here: as many as workers ask for, by consumers that come and go with what is asked for.
//!
//! Of messages without a key RabbitMQ may hand out as many as there is demand for. Of each lane of keys it hands out some more,
//! so that a key that has to wait does not hold up those behind it. A lane is given up only when nobody here handles anything:
//! another server would begin with the next message of a key.

use super::held::{Arrival, Held};
use super::{Demand, Store};
use crate::state::queue::desk::Desk;
use crate::state::queue::lanes::Entry;
use crate::state::queue::letter::Letter;
use crate::state::queue::sharing::{PAUSE, POLL};
use crate::state::rabbitmq::line::{Failed, Live};
use crate::state::wall_ms;
use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Messages of one lane that are handed out to its server at most.
const LANE_MAX: u16 = 32;

/// Messages without a key that are handed out to one server at most.
const MAIN_MAX: u64 = 2000;

/// How long there is to be less demand until fewer messages are handed out.
const CALM: Duration = Duration::from_secs(10);

/// How long nobody here is to take messages until none are handed out.
const DESERTED: Duration = Duration::from_secs(2);

/// How long to wait for more messages of a batch, and how many are looked at together.
const GATHER: Duration = Duration::from_millis(2);
const GATHER_MAX: usize = 500;

/// How long RabbitMQ has, once it is back, to hand out again what waits here for its time.
const RETURN_MAX: Duration = Duration::from_secs(10);

/// Takes messages for as long as it is polled.
pub(super) async fn keep(store: Rc<Store>, desk: Rc<Desk>) {
    let presence = store.line.presence();
    loop {
        presence.back().await;
        let number = presence.number();
        let ended = match (presence.connection(), number) {
            (Ok(live), Some(number)) => Taking::begin(&store, &desk, live, number).await,
            _ => continue,
        };
        lose(&store, &desk);
        if let Err(failed) = ended {
            if presence.number() == number {
                tracing::warn!(queue = store.label, %failed, "messages cannot be taken, trying again");
            }
            sleep(PAUSE).await;
        }
    }
}

/// Nothing is handed out to this server any more.
fn lose(store: &Store, desk: &Desk) {
    let idle = desk.lanes.borrow_mut().purge();
    let ready_at_ms = |entry: &Entry| desk.to_wall(entry.ready_at);
    store.held.borrow_mut().lose(idle, ready_at_ms);
    store.again.take();
    desk.run();
}

/// What comes from a consumer.
type Arrived = Result<Delivery, lapin::Error>;

/// A channel on which messages are taken.
struct Taking<'a> {
    store: &'a Rc<Store>,
    desk: &'a Desk,
    live: Rc<Live>,
    channel: Channel,
    begun: Instant,
    sender: UnboundedSender<Arrived>,
    /// Those of messages without a key, and how many messages each may have handed out.
    consumers: Vec<(ShortString, u64)>,
    takes_lanes: bool,
    /// Since when there is demand for fewer messages, and since when for none.
    calm_since: Option<Instant>,
    deserted_since: Option<Instant>,
    /// What listens to consumers.
    tasks: JoinSet<()>,
}

impl<'a> Taking<'a> {
    /// Takes messages until there is another connection, or nobody here takes any.
    async fn begin(
        store: &'a Rc<Store>,
        desk: &'a Desk,
        live: Rc<Live>,
        number: u64,
    ) -> Result<(), Failed> {
        let (sender, arrived) = mpsc::unbounded_channel();
        let taking = Self {
            store,
            desk,
            channel: live.channel().await?,
            live,
            begun: Instant::now(),
            sender,
            consumers: Vec::new(),
            takes_lanes: false,
            calm_since: None,
            deserted_since: None,
            tasks: JoinSet::new(),
        };
        taking.take(arrived, number).await
    }

    async fn take(
        mut self,
        mut arrived: UnboundedReceiver<Arrived>,
        number: u64,
    ) -> Result<(), Failed> {
        let presence = self.store.line.presence();
        loop {
            if self.is_deserted() {
                // What is held is handed out to others, in its order.
                let _ = self.channel.close(200, "nobody takes".into()).await;
                return Ok(());
            }
            self.meet_demand().await?;
            let again = self.store.again.take();
            self.hold(again.into_iter().map(|held| (held, false)).collect())
                .await;
            tokio::select! {
                first = arrived.recv() => {
                    let Some(first) = first else { return Ok(()) };
                    let all = self.gather(first?, &mut arrived).await?;
                    self.take_in(all).await;
                }
                () = self.store.bell.work.notified() => {}
                () = presence.is_other_than(Some(number)) => return Ok(()),
                () = sleep(POLL) => self.let_go(),
            }
        }
    }

    /// Tells whether nobody here has taken or handled anything for some time, and something is taken.
    fn is_deserted(&mut self) -> bool {
        let Demand {
            sessions,
            in_flight,
            ..
        } = self.store.demand.get();
        let takes = self.takes_lanes || !self.consumers.is_empty();
        if sessions > 0 || in_flight > 0 || !takes {
            self.deserted_since = None;
            return false;
        }
        let since = *self.deserted_since.get_or_insert_with(Instant::now);
        since.elapsed() >= DESERTED
    }

    /// Sees to it that as many messages are handed out as workers can take.
    async fn meet_demand(&mut self) -> Result<(), Failed> {
        let demand = self.store.demand.get();
        if demand.sessions == 0 {
            return Ok(());
        }
        if !self.takes_lanes {
            self.takes_lanes = true;
            for lane in self.store.names.lanes() {
                self.consume(lane, LANE_MAX).await?;
            }
        }
        let wanted = demand.messages.min(MAIN_MAX);
        let taken: u64 = self.consumers.iter().map(|(_, count)| count).sum();
        if wanted > taken {
            self.calm_since = None;
            // No more than fits: see the limit.
            let more = u16::try_from(wanted - taken).unwrap_or(u16::MAX);
            let tag = self.consume(self.store.names.main(), more).await?;
            self.consumers.push((tag, u64::from(more)));
            return Ok(());
        }
        let last = self.consumers.last().map_or(u64::MAX, |(_, count)| *count);
        if taken - wanted < last {
            self.calm_since = None;
            return Ok(());
        }
        let since = *self.calm_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= CALM
            && let Some((tag, _)) = self.consumers.pop()
        {
            let done = self
                .channel
                .basic_cancel(tag, BasicCancelOptions::default());
            done.await?;
        }
        Ok(())
    }

    /// Has messages of a queue handed out, up to a number; returns by what name.
    async fn consume(&mut self, queue: &ShortString, most: u16) -> Result<ShortString, Failed> {
        // It is that of the consumers that come after it.
        self.channel
            .basic_qos(most, BasicQosOptions::default())
            .await?;
        let (options, nothing) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = self
            .channel
            .basic_consume(queue.clone(), "".into(), options, nothing);
        let consumer = consumer.await?;
        self.store.moved_at.set(Instant::now());
        let tag = consumer.tag();
        self.tasks
            .spawn_local(listen(consumer, self.sender.clone()));
        Ok(tag)
    }

    /// Waits a little for more of what is handed out together, if a batch has room for it.
    async fn gather(
        &self,
        first: Delivery,
        arrived: &mut UnboundedReceiver<Arrived>,
    ) -> Result<Vec<Delivery>, Failed> {
        let (messages, batches) = self.store.demand.get().wanted;
        let mut all = vec![first];
        while all.len() < GATHER_MAX {
            let is_enough = messages <= batches || all.len() as u64 >= messages;
            let next = match is_enough {
                true => arrived.try_recv().ok(),
                false => timeout(GATHER, arrived.recv()).await.ok().flatten(),
            };
            match next {
                Some(next) => all.push(next?),
                None => break,
            }
        }
        Ok(all)
    }

    /// Takes messages, but for those that have to wait elsewhere.
    async fn take_in(&mut self, all: Vec<Delivery>) {
        let mut taken = Vec::with_capacity(all.len());
        for delivery in all {
            let Delivery {
                properties,
                data,
                acker,
                redelivered,
                ..
            } = delivery;
            let read = Letter::read(&self.store.label, &properties, data);
            let Ok((mut letter, returns)) = read else {
                // There is no randomness: later there may be. It is handed out again when the channel ends.
                continue;
            };
            // What its holder may have died of comes alone.
            letter.alone |= returns > 0;
            let has_to_wait = letter.ready_at_ms.saturating_sub(wall_ms());
            if self.store.names.step(has_to_wait).is_some() {
                let (store, live) = (self.store.clone(), self.live.clone());
                self.tasks
                    .spawn_local(async move { store.put_off(&live, &letter, &acker).await });
                continue;
            }
            let acker = Some(acker);
            taken.push((Held { letter, acker }, redelivered || returns > 0));
        }
        self.hold(taken).await;
    }

    /// Holds messages, and has them handled whose time has come. They may be here again.
    async fn hold(&mut self, all: Vec<(Held, bool)>) {
        if all.is_empty() {
            return;
        }
        let mut entries = Vec::with_capacity(all.len());
        for (held, is_again) in all {
            let arrival = self.store.held.borrow_mut().arrive(held, is_again);
            match arrival {
                Arrival::New(entry) => entries.push(Entry {
                    ready_at: self.desk.of_wall(entry.ready_at),
                    ..entry
                }),
                Arrival::Known => {}
                Arrival::Handled(acker) => {
                    // If it is not heard of, it comes again.
                    let _ = acker.ack(BasicAckOptions::default()).await;
                }
                Arrival::Decided(change) => {
                    let store = self.store.clone();
                    self.tasks.spawn_local(async move {
                        // If it is not heard of, it comes again.
                        let _ = store.settle(vec![change]).await;
                    });
                }
            }
        }
        self.store.moved_at.set(Instant::now());
        self.desk.add(entries);
    }

    /// Lets those go that were waiting here for their time when the connection broke, and have not come again: others have
    /// them.
    fn let_go(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        if self.begun.elapsed() < RETURN_MAX {
            return;
        }
        let mut lanes = self.desk.lanes.borrow_mut();
        if !self.store.held.borrow().has_adrift() {
            return;
        }
        let idle = lanes.purge();
        let mut held = self.store.held.borrow_mut();
        let (adrift, here): (Vec<_>, Vec<_>) =
            idle.into_iter().partition(|entry| held.is_adrift(entry.id));
        for entry in adrift {
            held.remove(entry.id);
        }
        drop((lanes, held));
        self.desk.add(here);
    }
}

/// Passes on what a consumer is handed out.
async fn listen(mut consumer: Consumer, to: UnboundedSender<Arrived>) {
    while let Some(arrived) = consumer.next().await {
        if to.send(arrived).is_err() {
            return;
        }
    }
}
