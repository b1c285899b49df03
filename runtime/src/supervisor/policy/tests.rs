//! The policy against a clock that the tests move and workers that are numbers.

use super::*;
use crate::config::shared::LockSpace;
use crate::config::{Config, ServeArgs};
use crate::supervisor::deploy::Deployment;
use std::time::Duration;

/// A server without processes. Actions are collected until a test takes them.
struct Server {
    policy: Policy,
    now: Instant,
    actions: Vec<Action>,
}

const SILENT: i32 = Signal::SIGABRT as i32;

fn deployment(workers: usize, change: impl FnOnce(&mut Config)) -> Rc<Deployment> {
    let args = ServeArgs {
        // Any file will do: nothing here reads it.
        path: "src/lib.rs".into(),
        workers: Some(workers.to_string().parse().unwrap()),
        ..ServeArgs::default()
    };
    let mut config = Config::load(&args).unwrap();
    change(&mut config);
    Rc::new(Deployment::stub(config))
}

fn failure() -> Failure {
    Failure::new(ExitCode::BadComponent, "broken")
}

impl Server {
    /// A server whose first generation is being compiled.
    fn starting(workers: usize) -> Self {
        let drain = deployment(workers, |_| {}).prepared.config.drain.clone();
        let mut server = Self {
            policy: Policy::new(drain, workers, || 0.0),
            now: Instant::now(),
            actions: Vec::new(),
        };
        server.decide();
        assert!(matches!(
            server.take()[..],
            [Action::Prepare { reload: false }]
        ));
        server
    }

    /// A server whose first generation serves.
    fn serving(workers: usize) -> Self {
        Self::serving_with(workers, |_| {})
    }

    fn serving_with(workers: usize, change: impl FnOnce(&mut Config)) -> Self {
        let mut server = Self::starting(workers);
        server.note(Event::Prepared(Ok(deployment(workers, change))));
        server.all_ready();
        server.take();
        assert_eq!(server.policy.state(), "serving");
        server
    }

    fn decide(&mut self) {
        self.actions.extend(self.policy.decide(self.now));
    }

    fn note(&mut self, event: Event) {
        self.policy.note(event, self.now);
        self.decide();
    }

    /// Moves the clock, stopping wherever the policy wants to be asked; every worker that can keeps sending heartbeats.
    fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            let wake = self
                .policy
                .wake()
                .filter(|&wake| wake > self.now)
                .unwrap_or(end);
            self.now = wake.min(end).min(self.now + Duration::from_millis(1000));
            for (_, worker) in self
                .policy
                .workers
                .iter_mut()
                .filter(|(_, worker)| worker.resident != STOPPED)
            {
                worker.heard = self.now;
            }
            self.decide();
        }
    }

    fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn all_ready(&mut self) {
        for id in self
            .policy
            .ids(|worker| matches!(worker.phase, Phase::Starting { .. }))
        {
            self.note(Event::Ready(id));
        }
    }

    /// Every worker that was told to end does.
    fn end_all_asked(&mut self) {
        for id in self.policy.ids(|worker| worker.written_off) {
            self.note(Event::Ended(id, Ending::Exited(0)));
        }
    }

    fn ids(&self, generation: u64) -> Vec<WorkerId> {
        self.policy
            .ids(|worker| worker.place.generation == generation)
    }

    fn phase(&self, id: WorkerId) -> &'static str {
        self.policy.worker(id).map_or("gone", Worker::state)
    }

    /// Brings about a crash storm: eleven crashes, in turns, so that backoff does not delay them for long.
    fn storm(&mut self) {
        for crash in 0..11 {
            self.pass(2000);
            self.all_ready();
            let slot = crash % 2;
            let in_slot = self.policy.ids(|worker| worker.place.slot == slot);
            self.crash(*in_slot.last().unwrap());
        }
        assert_eq!(self.policy.state(), "degraded");
    }

    /// The state process says that it is ready for every generation that it was told of.
    fn configured(&mut self) {
        for generation in configures(&self.take()) {
            self.note_state(StateEvent::Configured(generation));
        }
    }

    fn note_state(&mut self, event: StateEvent) {
        self.note(Event::State(event));
    }

    fn crash_state(&mut self) {
        self.note_state(StateEvent::Ended(Ending::KilledByOther));
    }

    fn state_word(&self) -> &'static str {
        self.policy
            .state_process()
            .status()
            .map_or("none", |(word, _)| word)
    }

    fn crash(&mut self, id: WorkerId) {
        self.note(Event::Ended(id, Ending::Signaled(Signal::SIGSEGV as i32)));
    }
}

/// The memory of a worker that gives no sign of life in [`Server::pass`].
const STOPPED: u64 = u64::MAX;

fn spawned(actions: &[Action]) -> Vec<(usize, u64)> {
    let place = |action: &Action| match action {
        Action::Spawn { place, .. } => Some((place.slot, place.generation)),
        _ => None,
    };
    actions.iter().filter_map(place).collect()
}

/// What is to be done with the state process, in a word each.
fn for_state(actions: &[Action]) -> Vec<String> {
    let word = |action: &Action| match action {
        Action::State(StateAction::Spawn) => Some("spawn".to_owned()),
        Action::State(StateAction::Configure { generation, .. }) => {
            Some(format!("configure {generation}"))
        }
        Action::State(StateAction::Forget { generation }) => Some(format!("forget {generation}")),
        Action::State(StateAction::Stop) => Some("stop".to_owned()),
        Action::State(StateAction::Kill { signal, .. }) => Some(signal.to_string()),
        Action::State(StateAction::Degraded(degraded)) => Some(format!("degraded {degraded}")),
        _ => None,
    };
    actions.iter().filter_map(word).collect()
}

fn configures(actions: &[Action]) -> Vec<u64> {
    let generation = |action: &Action| match action {
        Action::State(StateAction::Configure { generation, .. }) => Some(*generation),
        _ => None,
    };
    actions.iter().filter_map(generation).collect()
}

fn drained(actions: &[Action]) -> Vec<WorkerId> {
    let id = |action: &Action| match action {
        Action::Drain { worker, .. } => Some(*worker),
        _ => None,
    };
    actions.iter().filter_map(id).collect()
}

fn killed(actions: &[Action]) -> Vec<(WorkerId, Signal)> {
    let id = |action: &Action| match action {
        Action::Kill { worker, signal, .. } => Some((*worker, *signal)),
        _ => None,
    };
    actions.iter().filter_map(id).collect()
}

fn replies(actions: &[Action]) -> Vec<(u64, &ControlReply)> {
    let reply = |action: &'_ Action| match action {
        Action::Reply { ticket, .. } => Some(ticket.0),
        _ => None,
    };
    let tickets = actions.iter().filter_map(reply);
    let replies = actions.iter().filter_map(|action| match action {
        Action::Reply { reply, .. } => Some(reply),
        _ => None,
    });
    tickets.zip(replies).collect()
}

fn serves(actions: &[Action]) -> Option<(u64, usize, bool)> {
    actions.iter().find_map(|action| match *action {
        Action::Serve {
            generation,
            workers,
            is_first,
        } => Some((generation, workers, is_first)),
        _ => None,
    })
}

// The first start.

#[test]
fn first_generation_serves_once_every_worker_is_ready() {
    let mut server = Server::starting(2);
    server.note(Event::Prepared(Ok(deployment(2, |_| {}))));
    assert_eq!(spawned(&server.take()), [(0, 1), (1, 1)]);
    let [first, second] = server.ids(1)[..] else {
        panic!("two workers")
    };
    server.note(Event::Ready(first));
    assert_eq!(serves(&server.take()), None);
    assert_eq!(server.policy.state(), "starting");
    server.note(Event::Ready(second));
    assert_eq!(serves(&server.take()), Some((1, 2, true)));
}

#[test]
fn component_that_cannot_be_prepared_ends_the_server_with_its_failure() {
    let mut server = Server::starting(2);
    server.note(Event::Prepared(Err(failure())));
    assert_eq!(
        server.policy.outcome().unwrap().unwrap_err().code,
        ExitCode::BadComponent
    );
}

#[test]
fn component_that_no_worker_can_serve_ends_the_server_once_all_are_gone() {
    let mut server = Server::starting(2);
    server.note(Event::Prepared(Ok(deployment(2, |_| {}))));
    let [first, second] = server.ids(1)[..] else {
        panic!("two workers")
    };
    server.note(Event::Failed(
        first,
        Failure::new(ExitCode::Config, "import is missing"),
    ));
    assert_eq!(killed(&server.take()).len(), 2);
    server.note(Event::Ended(first, Ending::Exited(78)));
    assert!(server.policy.outcome().is_none());
    server.note(Event::Ended(second, Ending::Signaled(9)));
    assert_eq!(
        server.policy.outcome().unwrap().unwrap_err().message,
        "import is missing"
    );
}

#[test]
fn five_deaths_while_starting_end_the_server_with_70() {
    let mut server = Server::starting(1);
    server.note(Event::Prepared(Ok(deployment(1, |_| {}))));
    for death in 1..=5 {
        assert!(server.policy.outcome().is_none(), "before death {death}");
        server.pass(5000);
        server.crash(server.ids(1)[0]);
    }
    let failure = server.policy.outcome().unwrap().unwrap_err();
    assert_eq!(failure.code, ExitCode::Internal);
    assert_eq!(
        failure.message,
        "workers keep dying while starting: killed by SIGSEGV"
    );
}

#[test]
fn worker_that_never_gets_ready_ends_the_start_after_half_a_minute() {
    let mut server = Server::starting(1);
    server.note(Event::Prepared(Ok(deployment(1, |_| {}))));
    let id = server.ids(1)[0];
    server.pass(29_999);
    assert_eq!(server.phase(id), "starting");
    server.pass(1);
    server.decide();
    assert_eq!(killed(&server.take()), [(id, Signal::SIGKILL)]);
    server.note(Event::Ended(id, Ending::Signaled(9)));
    assert!(server.policy.outcome().unwrap().is_err());
}

// Deaths.

#[test]
fn dead_worker_is_replaced_at_once_and_the_next_one_after_a_delay() {
    let mut server = Server::serving(2);
    server.crash(server.ids(1)[0]);
    assert_eq!(spawned(&server.take()), [(0, 1)]);
    let second = *server.ids(1).last().unwrap();
    server.crash(second);
    assert_eq!(spawned(&server.take()), []);
    server.pass(99);
    assert_eq!(spawned(&server.take()), []);
    server.pass(1);
    assert_eq!(spawned(&server.take()), [(0, 1)]);
    assert_eq!(
        (server.policy.restarts(0), server.policy.restarts(1)),
        (2, 0)
    );
}

#[test]
fn worker_that_gives_up_after_being_ready_is_tried_again_every_ten_seconds() {
    let mut server = Server::serving(1);
    server.note(Event::Ended(server.ids(1)[0], Ending::Exited(78)));
    server.pass(9999);
    assert_eq!(spawned(&server.take()), []);
    server.pass(1);
    assert_eq!(spawned(&server.take()), [(0, 1)]);
}

#[test]
fn worker_that_asks_for_a_fresh_one_is_no_crash() {
    let mut server = Server::serving(1);
    for _ in 0..20 {
        server.note(Event::Ended(server.ids(1)[0], Ending::Exited(75)));
        assert_eq!(spawned(&server.take()), [(0, 1)]);
        server.all_ready();
    }
    assert_eq!(server.policy.state(), "serving");
    assert_eq!(server.policy.restarts(0), 20);
}

#[test]
fn worker_that_cannot_be_forked_is_tried_again_later() {
    let mut server = Server::serving(1);
    server.crash(server.ids(1)[0]);
    server.take();
    server.note(Event::Ended(
        server.ids(1)[0],
        Ending::NotStarted("no memory".into()),
    ));
    assert_eq!(spawned(&server.take()), []);
    server.pass(100);
    assert_eq!(spawned(&server.take()), [(0, 1)]);
}

#[test]
fn worker_that_sends_garbage_is_killed_and_replaced_and_nothing_else() {
    let mut server = Server::serving(2);
    let id = server.ids(1)[0];
    server.note(Event::Garbage(id));
    server.note(Event::Garbage(id));
    let actions = server.take();
    assert_eq!(killed(&actions), [(id, Signal::SIGKILL)]);
    assert_eq!(spawned(&actions), [(0, 1)]);
    assert_eq!(server.policy.restarts(0), 1);
}

#[test]
fn crash_storm_slows_restarts_down_until_a_minute_was_quiet() {
    let mut server = Server::serving(2);
    server.storm();
    let actions = server.take();
    assert_eq!(
        actions
            .iter()
            .filter(|action| matches!(action, Action::Degraded(true)))
            .count(),
        1
    );
    server.pass(10_000);
    assert_eq!(
        spawned(&server.take()),
        [(0, 1)],
        "the survivor got its neighbour back"
    );
    server.all_ready();
    server.pass(49_000);
    assert!(server.take().is_empty());
    server.pass(1000);
    assert!(matches!(server.take()[..], [Action::Degraded(false)]));
    assert_eq!(server.policy.state(), "serving");
}

#[test]
fn restarts_in_a_crash_storm_are_five_seconds_apart_over_all_slots() {
    let mut server = Server::serving(2);
    server.storm();
    server.pass(20_000);
    for id in server.ids(1) {
        server.crash(id);
    }
    server.take();
    let mut starts = Vec::new();
    for second in 0..30 {
        starts.extend(spawned(&server.take()).iter().map(|_| second));
        server.pass(1000);
    }
    assert_eq!(starts.len(), 2);
    assert!(starts[1] - starts[0] >= 5, "{starts:?}");
}

#[test]
fn reload_goes_ahead_in_a_crash_storm_and_ends_it() {
    let mut server = Server::serving(2);
    server.storm();
    server.take();
    server.note(Event::Reload(None));
    server.note(Event::Prepared(Ok(deployment(2, |_| {}))));
    assert_eq!(spawned(&server.take()), [(0, 2), (1, 2)]);
    server.all_ready();
    assert_eq!(server.policy.state(), "serving");
}

// Hangs.

#[test]
fn silent_worker_is_aborted_replaced_at_once_and_killed_a_second_later() {
    let mut server = Server::serving(2);
    let id = server.ids(1)[0];
    server.note(Event::Resident(id, STOPPED));
    server.pass(4999);
    assert_eq!(killed(&server.take()), []);
    server.pass(1);
    let actions = server.take();
    assert_eq!(killed(&actions), [(id, Signal::SIGABRT)]);
    assert_eq!(spawned(&actions), [(0, 1)]);
    assert_eq!(server.phase(id), "hung");
    server.pass(1000);
    assert_eq!(killed(&server.take()), [(id, Signal::SIGKILL)]);
    server.note(Event::Ended(id, Ending::Signaled(9)));
    assert_eq!(server.policy.restarts(0), 1, "one hang is one restart");
}

#[test]
fn workers_are_not_blamed_for_the_time_that_the_supervisor_slept() {
    let mut server = Server::serving(2);
    let slept = Duration::from_secs(60);
    server.now += slept;
    server.policy.note(Event::Overslept(slept), server.now);
    server.decide();
    assert_eq!(killed(&server.take()), []);
}

#[test]
fn hang_is_noticed_by_a_supervisor_that_is_often_late() {
    let mut server = Server::serving(1);
    let missed = Duration::from_secs(2);
    // Each time 3 s pass of which the supervisor missed 2: it has seen 5 s of silence after five times.
    let mut late = || {
        server.now += Duration::from_secs(3);
        server.policy.note(Event::Overslept(missed), server.now);
        server.decide();
        killed(&server.take())
    };
    for _ in 0..4 {
        assert_eq!(late(), []);
    }
    let killed: Vec<_> = late().into_iter().map(|(_, signal)| signal).collect();
    assert_eq!(killed, [Signal::SIGABRT]);
}

#[test]
fn worker_that_never_served_is_not_judged_by_its_heartbeat() {
    let mut server = Server::serving(1);
    server.crash(server.ids(1)[0]);
    let starting = server.ids(1)[0];
    server.note(Event::Resident(starting, STOPPED));
    server.pass(10_000);
    assert_eq!(server.phase(starting), "starting");
}

// Reloads.

#[test]
fn old_generation_drains_only_when_every_new_worker_is_ready() {
    let mut server = Server::serving(2);
    let old = server.ids(1);
    server.note(Event::Reload(Some(Ticket(7))));
    assert!(matches!(
        server.take()[..],
        [Action::Prepare { reload: true }]
    ));
    assert_eq!(server.policy.state(), "reloading");
    server.note(Event::Prepared(Ok(deployment(2, |_| {}))));
    assert_eq!(spawned(&server.take()), [(0, 2), (1, 2)]);
    let [first, second] = server.ids(2)[..] else {
        panic!("two workers")
    };
    server.note(Event::Ready(first));
    assert_eq!(drained(&server.take()), []);
    server.note(Event::Ready(second));
    let actions = server.take();
    assert_eq!(serves(&actions), Some((2, 2, false)));
    assert_eq!(drained(&actions), old);
    assert!(matches!(
        replies(&actions)[..],
        [(7, ControlReply::Reloaded { generation: 2 })]
    ));
}

#[test]
fn reload_whose_component_is_broken_changes_nothing_and_says_why() {
    let mut server = Server::serving(2);
    server.note(Event::Reload(Some(Ticket(7))));
    server.take();
    server.note(Event::Prepared(Err(failure())));
    let actions = server.take();
    assert!(matches!(
        replies(&actions)[..],
        [(
            7,
            ControlReply::Failed(Failure {
                code: ExitCode::BadComponent,
                ..
            })
        )]
    ));
    assert!(
        (drained(&actions).is_empty())
            && killed(&actions).is_empty()
            && spawned(&actions).is_empty()
    );
    assert_eq!(server.policy.generation(), 1);
    assert_eq!(server.policy.state(), "serving");
}

#[test]
fn reload_whose_worker_dies_kills_what_starts_and_drains_what_accepts_already() {
    let mut server = Server::serving(3);
    let old = server.ids(1);
    server.note(Event::Reload(Some(Ticket(7))));
    server.note(Event::Prepared(Ok(deployment(3, |_| {}))));
    let [ready, dead, starting] = server.ids(2)[..] else {
        panic!("three workers")
    };
    server.note(Event::Ready(ready));
    server.take();
    server.crash(dead);
    let actions = server.take();
    assert_eq!(drained(&actions), [ready]);
    assert_eq!(killed(&actions), [(starting, Signal::SIGKILL)]);
    assert!(matches!(
        replies(&actions)[..],
        [(7, ControlReply::Failed(_))]
    ));
    assert!(old.iter().all(|&id| server.phase(id) == "ready"));
    server.end_all_asked();
    assert_eq!(server.policy.restarts(1), 1, "only the crash counts");
}

#[test]
fn old_worker_that_dies_during_a_reload_is_replaced_by_the_old_generation() {
    let mut server = Server::serving(2);
    server.note(Event::Reload(None));
    server.note(Event::Prepared(Ok(deployment(2, |_| {}))));
    server.take();
    server.crash(server.ids(1)[1]);
    assert_eq!(spawned(&server.take()), [(1, 1)]);
}

#[test]
fn reloads_that_wait_become_one_and_each_client_gets_its_outcome() {
    let mut server = Server::serving(1);
    server.note(Event::Reload(Some(Ticket(1))));
    server.note(Event::Reload(Some(Ticket(2))));
    server.note(Event::Reload(Some(Ticket(3))));
    server.take();
    server.note(Event::Prepared(Ok(deployment(1, |_| {}))));
    server.all_ready();
    let actions = server.take();
    assert!(matches!(
        replies(&actions)[..],
        [(1, ControlReply::Reloaded { generation: 2 })]
    ));
    assert_eq!(
        actions
            .iter()
            .filter(|action| matches!(action, Action::Prepare { .. }))
            .count(),
        1
    );
    server.note(Event::Prepared(Err(failure())));
    let actions = server.take();
    assert!(matches!(
        replies(&actions)[..],
        [(2, ControlReply::Failed(_)), (3, ControlReply::Failed(_))]
    ));
    assert_eq!(server.policy.state(), "serving");
}

#[test]
fn number_of_workers_follows_changed_settings_and_else_what_was_asked_for() {
    let mut server = Server::serving(2);
    server.note(Event::Scale(4, Ticket(1)));
    let reload = |server: &mut Server, workers| {
        server.note(Event::Reload(None));
        server.note(Event::Prepared(Ok(deployment(workers, |_| {}))));
        server.all_ready();
        server.end_all_asked();
        server.policy.target()
    };
    assert_eq!(reload(&mut server, 2), 4);
    assert_eq!(reload(&mut server, 3), 3);
}

#[test]
fn dead_listener_gets_every_worker_replaced() {
    let mut server = Server::serving(2);
    let old = server.ids(1);
    server.note(Event::ListenerReplaced);
    let actions = server.take();
    assert_eq!(drained(&actions), old);
    assert_eq!(spawned(&actions), [(0, 2), (1, 2)]);
    assert_eq!(server.policy.generation(), 2);
}

#[test]
fn dead_listener_during_a_reload_begins_the_reload_again() {
    let mut server = Server::serving(1);
    server.note(Event::Reload(Some(Ticket(7))));
    server.note(Event::Prepared(Ok(deployment(1, |_| {}))));
    server.take();
    server.note(Event::ListenerReplaced);
    let actions = server.take();
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Prepare { .. }))
    );
    assert_eq!(spawned(&actions), [(0, 3)]);
    server.note(Event::Prepared(Ok(deployment(1, |_| {}))));
    server.all_ready();
    assert!(matches!(
        replies(&server.take())[..],
        [(7, ControlReply::Reloaded { generation: 4 })]
    ));
}

// More and fewer.

#[test]
fn scaling_up_is_answered_when_the_new_workers_are_ready() {
    let mut server = Server::serving(1);
    server.note(Event::Scale(3, Ticket(7)));
    let actions = server.take();
    assert_eq!(spawned(&actions), [(1, 1), (2, 1)]);
    assert!(replies(&actions).is_empty());
    server.all_ready();
    assert!(matches!(
        replies(&server.take())[..],
        [(7, ControlReply::Done)]
    ));
}

#[test]
fn scaling_down_drains_the_highest_slots() {
    let mut server = Server::serving(3);
    let ids = server.ids(1);
    server.note(Event::Scale(1, Ticket(7)));
    let actions = server.take();
    assert_eq!(drained(&actions), ids[1..]);
    assert!(matches!(replies(&actions)[..], [(7, ControlReply::Done)]));
    server.end_all_asked();
    assert_eq!(server.policy.restarts(2), 0);
    assert_eq!(spawned(&server.take()), []);
}

#[test]
fn last_worker_stays() {
    let mut server = Server::serving(1);
    server.note(Event::Shrink);
    assert!(server.take().is_empty());
    server.note(Event::Scale(0, Ticket(7)));
    assert!(matches!(
        replies(&server.take())[..],
        [(7, ControlReply::Failed(_))]
    ));
    server.note(Event::Grow);
    assert_eq!(spawned(&server.take()), [(1, 1)]);
}

// Recycling.

#[test]
fn spent_workers_are_replaced_one_at_a_time_and_the_replacement_comes_first() {
    let mut server = Server::serving_with(2, |config| config.recycle.max_requests = 100);
    let [first, second] = server.ids(1)[..] else {
        panic!("two workers")
    };
    server.note(Event::Heartbeat(first, 100));
    server.note(Event::Heartbeat(second, 100));
    let actions = server.take();
    assert_eq!(spawned(&actions), [(0, 1)]);
    assert_eq!(drained(&actions), []);
    server.all_ready();
    assert_eq!(drained(&server.take()), [first]);
    server.pass(1000);
    assert_eq!(spawned(&server.take()), [], "the first one is not gone yet");
    server.end_all_asked();
    server.decide();
    assert_eq!(spawned(&server.take()), [(1, 1)]);
    assert_eq!(server.policy.restarts(0), 0);
}

#[test]
fn worker_that_grew_too_large_is_replaced_but_a_fresh_one_gets_time() {
    let mut server = Server::serving_with(1, |config| config.recycle.max_memory = 1000);
    let id = server.ids(1)[0];
    server.note(Event::Resident(id, 1001));
    assert!(server.take().is_empty());
    server.pass(3000);
    assert_eq!(spawned(&server.take()), [(0, 1)]);
}

#[test]
fn replacement_that_dies_leaves_the_old_worker_where_it_is() {
    let mut server = Server::serving_with(1, |config| config.recycle.max_requests = 100);
    let old = server.ids(1)[0];
    server.note(Event::Heartbeat(old, 100));
    server.crash(*server.ids(1).last().unwrap());
    assert_eq!(
        spawned(&server.take()),
        [(0, 1), (0, 1)],
        "the first time at once"
    );
    server.crash(*server.ids(1).last().unwrap());
    assert_eq!(server.phase(old), "ready");
    assert_eq!(spawned(&server.take()), [], "the slot backs off");
    server.pass(100);
    server.note(Event::Heartbeat(old, 100));
    assert_eq!(spawned(&server.take()), [(0, 1)]);
}

// The end.

#[test]
fn stop_drains_everyone_and_ends_when_they_are_gone() {
    let mut server = Server::serving(2);
    let ids = server.ids(1);
    server.note(Event::Terminate);
    let actions = server.take();
    assert!(matches!(actions[0], Action::Stopping));
    assert_eq!(drained(&actions), ids);
    server.note(Event::Ended(ids[0], Ending::Exited(0)));
    assert!(server.policy.outcome().is_none());
    assert_eq!(spawned(&server.take()), []);
    server.note(Event::Ended(ids[1], Ending::Exited(0)));
    assert!(matches!(server.policy.outcome(), Some(Ok(()))));
}

#[test]
fn second_signal_kills_at_once() {
    let mut server = Server::serving(1);
    let id = server.ids(1)[0];
    server.note(Event::Terminate);
    server.take();
    server.note(Event::Terminate);
    assert_eq!(killed(&server.take()), [(id, Signal::SIGKILL)]);
    server.note(Event::Ended(id, Ending::Signaled(9)));
    assert!(matches!(server.policy.outcome(), Some(Ok(()))));
}

#[test]
fn one_signal_after_wrun_stop_is_not_a_second_signal() {
    let mut server = Server::serving(1);
    server.note(Event::Stop);
    server.note(Event::Terminate);
    assert_eq!(killed(&server.take()), []);
}

#[test]
fn worker_that_does_not_drain_in_time_is_killed() {
    let mut server = Server::serving(1);
    let id = server.ids(1)[0];
    server.note(Event::Stop);
    server.pass(30_999);
    assert_eq!(killed(&server.take()), []);
    server.pass(1);
    assert_eq!(killed(&server.take()), [(id, Signal::SIGKILL)]);
}

#[test]
fn stop_during_a_reload_ends_the_compile_child_and_answers_who_waits() {
    let mut server = Server::serving(1);
    server.note(Event::Reload(Some(Ticket(1))));
    server.note(Event::Reload(Some(Ticket(2))));
    server.take();
    server.note(Event::Stop);
    server.note(Event::Reload(Some(Ticket(3))));
    let actions = server.take();
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::EndPreparation))
    );
    let mut tickets: Vec<u64> = replies(&actions)
        .into_iter()
        .map(|(ticket, _)| ticket)
        .collect();
    tickets.sort_unstable();
    assert_eq!(tickets, [1, 2, 3]);
}

#[test]
fn hung_worker_does_not_hold_up_the_end() {
    let mut server = Server::serving(1);
    let id = server.ids(1)[0];
    server.note(Event::Resident(id, STOPPED));
    server.note(Event::Stop);
    server.take();
    server.pass(6000);
    assert_eq!(
        killed(&server.take()),
        [(id, Signal::SIGABRT), (id, Signal::SIGKILL)]
    );
    server.note(Event::Ended(id, Ending::Signaled(SILENT)));
    assert!(matches!(server.policy.outcome(), Some(Ok(()))));
}

// The state process.

fn shares(config: &mut Config) {
    config
        .shared
        .locks
        .insert("stock".into(), LockSpace::default());
}

impl Server {
    /// A server whose first generation shares something and serves.
    fn sharing(workers: usize) -> Self {
        let mut server = Self::starting(workers);
        server.note(Event::Prepared(Ok(deployment(workers, shares))));
        server.configured();
        server.all_ready();
        server.take();
        assert_eq!(
            (server.policy.state(), server.state_word()),
            ("serving", "ready")
        );
        server
    }
}

#[test]
fn server_that_shares_nothing_has_no_state_process() {
    let mut server = Server::starting(1);
    server.note(Event::Prepared(Ok(deployment(1, |_| {}))));
    let actions = server.take();
    assert_eq!((for_state(&actions).len(), spawned(&actions).len()), (0, 1));
    assert_eq!(server.state_word(), "none");
}

#[test]
fn workers_start_once_the_state_process_is_ready_for_them() {
    let mut server = Server::starting(2);
    server.note(Event::Prepared(Ok(deployment(2, shares))));
    let actions = server.take();
    assert_eq!(for_state(&actions), ["spawn", "configure 1"]);
    assert_eq!(spawned(&actions), []);
    assert_eq!(server.state_word(), "starting");
    server.note_state(StateEvent::Configured(1));
    assert_eq!(spawned(&server.take()), [(0, 1), (1, 1)]);
    assert_eq!(server.state_word(), "ready");
}

#[test]
fn first_generation_that_cannot_have_what_it_shares_ends_the_server_with_the_reason() {
    let mut server = Server::starting(1);
    server.note(Event::Prepared(Ok(deployment(1, shares))));
    server.take();
    server.note_state(StateEvent::Refused(1, failure()));
    assert_eq!(for_state(&server.take()), ["forget 1", "stop"]);
    assert!(server.policy.outcome().is_none(), "it is not gone yet");
    server.note_state(StateEvent::Ended(Ending::Exited(0)));
    assert_eq!(
        server.policy.outcome().unwrap().unwrap_err().message,
        "broken"
    );
}

#[test]
fn state_process_that_dies_five_times_at_the_first_start_ends_the_server() {
    let mut server = Server::starting(1);
    server.note(Event::Prepared(Ok(deployment(1, shares))));
    for death in 1..=5 {
        assert!(server.policy.outcome().is_none(), "before death {death}");
        server.pass(5000);
        server.crash_state();
    }
    let failure = server.policy.outcome().unwrap().unwrap_err();
    assert!(
        failure.message.starts_with("the state process keeps dying"),
        "{failure}"
    );
}

#[test]
fn state_process_that_says_nothing_at_its_start_is_killed_after_half_a_minute() {
    let mut server = Server::starting(1);
    server.note(Event::Prepared(Ok(deployment(1, shares))));
    server.take();
    server.pass(29_999);
    assert_eq!(for_state(&server.take()), Vec::<String>::new());
    server.pass(1);
    assert_eq!(for_state(&server.take()), ["SIGABRT"]);
}

#[test]
fn migrations_that_take_more_than_ten_minutes_fail_the_start() {
    let mut server = Server::starting(1);
    server.note(Event::Prepared(Ok(deployment(1, shares))));
    for _ in 0..601 {
        server.note_state(StateEvent::Heartbeat);
        server.pass(1000);
    }
    assert_eq!(for_state(&server.take()).last().unwrap(), "stop");
    server.note_state(StateEvent::Ended(Ending::Exited(0)));
    let failure = server.policy.outcome().unwrap().unwrap_err();
    assert!(failure.message.contains("10 min"), "{failure}");
}

#[test]
fn dead_state_process_is_replaced_and_told_all_and_no_worker_is() {
    let mut server = Server::sharing(2);
    server.crash_state();
    let actions = server.take();
    assert_eq!(for_state(&actions), ["spawn", "configure 1"]);
    assert_eq!(
        (
            spawned(&actions).len(),
            killed(&actions).len(),
            drained(&actions).len()
        ),
        (0, 0, 0)
    );
    assert_eq!(
        server.policy.state_process().status(),
        Some(("restarting", 1))
    );
    server.note_state(StateEvent::Configured(1));
    assert_eq!(server.policy.state_process().status(), Some(("ready", 1)));
}

#[test]
fn worker_may_start_while_the_state_process_does() {
    let mut server = Server::sharing(1);
    server.crash_state();
    server.take();
    server.crash(server.ids(1)[0]);
    assert_eq!(spawned(&server.take()), [(0, 1)]);
}

#[test]
fn state_process_that_keeps_dying_comes_back_ever_later_and_degrades_the_server() {
    let mut server = Server::sharing(1);
    server.crash_state();
    assert_eq!(for_state(&server.take()), ["spawn", "configure 1"]);
    server.crash_state();
    server.pass(99);
    assert_eq!(for_state(&server.take()), Vec::<String>::new());
    server.pass(1);
    assert_eq!(for_state(&server.take()), ["spawn", "configure 1"]);
    for delay in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000] {
        server.crash_state();
        server.pass(delay);
    }
    assert!(for_state(&server.take()).contains(&"degraded true".to_owned()));
    assert_eq!(
        (server.policy.state(), server.phase(server.ids(1)[0])),
        ("degraded", "ready")
    );
    server.note_state(StateEvent::Configured(1));
    for _ in 0..60 {
        server.note_state(StateEvent::Heartbeat);
        server.pass(1000);
    }
    assert_eq!(for_state(&server.take()), ["degraded false"]);
    assert_eq!(server.policy.state(), "serving");
}

#[test]
fn state_process_that_served_for_long_is_replaced_at_once_again() {
    let mut server = Server::sharing(1);
    for _ in 0..3 {
        for _ in 0..30 {
            server.note_state(StateEvent::Heartbeat);
            server.pass(1000);
        }
        server.crash_state();
        assert_eq!(for_state(&server.take()), ["spawn", "configure 1"]);
        server.note_state(StateEvent::Configured(1));
    }
}

#[test]
fn silent_state_process_is_ended_and_replaced_only_once_it_is_gone() {
    let mut server = Server::sharing(1);
    server.note_state(StateEvent::Heartbeat);
    server.pass(4999);
    assert_eq!(for_state(&server.take()), Vec::<String>::new());
    server.pass(1);
    assert_eq!(for_state(&server.take()), ["SIGABRT"]);
    assert_eq!(server.state_word(), "hung");
    server.pass(1000);
    assert_eq!(for_state(&server.take()), ["SIGKILL"]);
    server.pass(10_000);
    assert_eq!(
        for_state(&server.take()),
        Vec::<String>::new(),
        "it may still write"
    );
    server.note_state(StateEvent::Ended(Ending::Signaled(9)));
    assert_eq!(for_state(&server.take()), ["spawn", "configure 1"]);
}

#[test]
fn supervisor_that_was_stopped_does_not_take_the_state_process_for_hung() {
    let mut server = Server::sharing(1);
    server.note_state(StateEvent::Heartbeat);
    server.now += Duration::from_secs(60);
    server.note(Event::Overslept(Duration::from_secs(60)));
    assert_eq!(for_state(&server.take()), Vec::<String>::new());
    server.pass(5000);
    assert_eq!(for_state(&server.take()), ["SIGABRT"]);
}

#[test]
fn state_process_that_sends_garbage_is_killed_and_replaced() {
    let mut server = Server::sharing(1);
    server.note_state(StateEvent::Garbage);
    assert_eq!(for_state(&server.take()), ["SIGKILL"]);
    server.note_state(StateEvent::Ended(Ending::Signaled(9)));
    assert_eq!(for_state(&server.take()), ["spawn", "configure 1"]);
}

#[test]
fn reload_is_configured_before_its_workers_and_the_old_generation_forgotten_after_them() {
    let mut server = Server::sharing(1);
    server.note(Event::Reload(Some(Ticket(1))));
    server.note(Event::Prepared(Ok(deployment(1, shares))));
    let actions = server.take();
    assert_eq!(
        (for_state(&actions), spawned(&actions)),
        (vec!["configure 2".to_owned()], vec![])
    );
    server.note_state(StateEvent::Configured(2));
    assert_eq!(spawned(&server.take()), [(0, 2)]);
    server.all_ready();
    assert_eq!(for_state(&server.take()), Vec::<String>::new());
    server.end_all_asked();
    assert_eq!(for_state(&server.take()), ["forget 1"]);
}

#[test]
fn reload_whose_migrations_fail_changes_nothing() {
    let mut server = Server::sharing(1);
    let old = server.ids(1)[0];
    server.note(Event::Reload(Some(Ticket(1))));
    server.note(Event::Prepared(Ok(deployment(1, shares))));
    server.take();
    server.note_state(StateEvent::Refused(2, failure()));
    let actions = server.take();
    assert!(matches!(
        replies(&actions)[..],
        [(1, ControlReply::Failed(_))]
    ));
    assert_eq!(
        (for_state(&actions), spawned(&actions)),
        (vec!["forget 2".to_owned()], vec![])
    );
    assert_eq!(
        (server.policy.generation(), server.phase(old)),
        (1, "ready")
    );
    assert_eq!(
        (server.policy.state(), server.state_word()),
        ("serving", "ready")
    );
    server.pass(60_000);
    assert!(
        configures(&server.take()).is_empty(),
        "it is not tried again"
    );
}

#[test]
fn reload_during_which_the_state_process_dies_fails_and_the_old_generation_goes_on() {
    let mut server = Server::sharing(1);
    server.note(Event::Reload(Some(Ticket(1))));
    server.note(Event::Prepared(Ok(deployment(1, shares))));
    server.take();
    server.crash_state();
    let actions = server.take();
    assert!(matches!(
        replies(&actions)[..],
        [(1, ControlReply::Failed(_))]
    ));
    assert_eq!(for_state(&actions), ["spawn", "configure 1"]);
    assert_eq!(server.policy.generation(), 1);
}

#[test]
fn generations_with_live_workers_are_all_told_to_the_next_state_process() {
    let mut server = Server::sharing(1);
    server.note(Event::Reload(None));
    server.note(Event::Prepared(Ok(deployment(1, shares))));
    server.note_state(StateEvent::Configured(2));
    server.all_ready();
    server.take();
    // The worker of the first generation drains.
    server.crash_state();
    assert_eq!(
        for_state(&server.take()),
        ["spawn", "configure 1", "configure 2"]
    );
}

#[test]
fn generation_that_serves_and_is_refused_after_a_restart_is_told_again_later() {
    let mut server = Server::sharing(1);
    server.crash_state();
    server.take();
    server.note_state(StateEvent::Refused(1, failure()));
    assert_eq!(
        (server.policy.state(), server.state_word()),
        ("serving", "restarting")
    );
    for _ in 0..10 {
        server.note_state(StateEvent::Heartbeat);
        server.pass(1000);
    }
    assert_eq!(for_state(&server.take()), ["configure 1"]);
    server.note_state(StateEvent::Configured(1));
    assert_eq!(server.state_word(), "ready");
}

#[test]
fn reload_may_begin_to_share_and_cease_to() {
    let mut server = Server::serving(1);
    server.note(Event::Reload(None));
    server.note(Event::Prepared(Ok(deployment(1, shares))));
    let actions = server.take();
    assert_eq!(for_state(&actions), ["spawn", "configure 2"]);
    server.note_state(StateEvent::Configured(2));
    server.all_ready();
    server.end_all_asked();
    server.note(Event::Reload(None));
    server.take();
    server.note(Event::Prepared(Ok(deployment(1, |_| {}))));
    server.all_ready();
    server.end_all_asked();
    assert_eq!(
        for_state(&server.take()),
        ["forget 2"],
        "it stays until the end"
    );
    server.crash_state();
    assert_eq!(
        for_state(&server.take()),
        Vec::<String>::new(),
        "nobody needs another one"
    );
}

#[test]
fn state_process_is_the_last_to_go() {
    let mut server = Server::sharing(2);
    server.note(Event::Stop);
    assert_eq!(for_state(&server.take()), Vec::<String>::new());
    server.end_all_asked();
    assert_eq!(for_state(&server.take()), ["stop"]);
    assert!(server.policy.outcome().is_none());
    assert_eq!(server.state_word(), "stopping");
    server.note_state(StateEvent::Ended(Ending::Exited(0)));
    assert!(matches!(server.policy.outcome(), Some(Ok(()))));
}

#[test]
fn state_process_that_dies_while_workers_drain_is_replaced() {
    let mut server = Server::sharing(1);
    server.note(Event::Stop);
    server.take();
    server.crash_state();
    assert_eq!(for_state(&server.take()), ["spawn", "configure 1"]);
}

#[test]
fn state_process_that_does_not_end_is_killed_after_ten_seconds() {
    let mut server = Server::sharing(1);
    server.note(Event::Stop);
    server.end_all_asked();
    server.take();
    server.pass(9999);
    assert_eq!(for_state(&server.take()), Vec::<String>::new());
    server.pass(1);
    assert_eq!(for_state(&server.take()), ["SIGKILL"]);
}

#[test]
fn second_signal_kills_the_state_process_too_and_for_good() {
    let mut server = Server::sharing(1);
    let id = server.ids(1)[0];
    server.note(Event::Terminate);
    server.note(Event::Terminate);
    let actions = server.take();
    assert_eq!(
        (killed(&actions), for_state(&actions)),
        (vec![(id, Signal::SIGKILL)], vec!["SIGKILL".to_owned()])
    );
    server.note_state(StateEvent::Ended(Ending::Signaled(9)));
    assert_eq!(for_state(&server.take()), Vec::<String>::new());
    server.note(Event::Ended(id, Ending::Signaled(9)));
    assert!(matches!(server.policy.outcome(), Some(Ok(()))));
}

#[test]
fn generation_that_only_has_new_sockets_is_configured_as_any_other() {
    let mut server = Server::sharing(1);
    server.note(Event::ListenerReplaced);
    let actions = server.take();
    assert_eq!(
        (for_state(&actions), spawned(&actions)),
        (vec!["configure 2".to_owned()], vec![])
    );
    server.note_state(StateEvent::Configured(2));
    assert_eq!(spawned(&server.take()), [(0, 2)]);
}
