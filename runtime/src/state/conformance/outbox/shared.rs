//! Cases of outboxes that several servers use: who takes messages on, and who waits for whom.

use super::super::cases;
use super::*;
use std::collections::BTreeMap;

pub(super) fn cases<B: HasSharedOutbox>() -> Vec<Case<B>> {
    cases![
        one_server_leads_at_a_time_for_each_queue,
        servers_that_come_and_go_lose_nothing_and_keep_the_order,
        transactions_without_a_key_wait_for_nobody,
    ]
}

async fn one_server_leads_at_a_time_for_each_queue<B: HasSharedOutbox>(on: B) {
    let (here, there) = (on.outbox(), on.elsewhere());
    let lead = here.lead(B::ELSEWHERE).await.unwrap().unwrap();
    assert!(there.lead(B::ELSEWHERE).await.unwrap().is_none());
    let other = there.lead("other").await.unwrap();
    assert!(other.is_some(), "another queue is another matter");
    lead.resign().await;
    let lead = there.lead(B::ELSEWHERE).await.unwrap();
    assert!(lead.is_some());
    assert!(here.lead(B::ELSEWHERE).await.unwrap().is_none());
    // It dies, and says nothing.
    drop(lead);
    while here.lead(B::ELSEWHERE).await.unwrap().is_none() {
        tokio::time::sleep(LOOK).await;
    }
}

async fn servers_that_come_and_go_lose_nothing_and_keep_the_order<B: HasSharedOutbox>(on: B) {
    const SENDERS: usize = 6;
    const EACH: usize = 15;
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let queue = Rc::<Elsewhere>::default();
    let trouble = [Trouble::IsCutOff, Trouble::Refuses(QueueError::Full)];
    for _ in 0..10 {
        queue.trouble.borrow_mut().extend(trouble.clone());
    }
    // In the order in which each got its turn.
    let sent = RefCell::new(BTreeMap::<&str, Vec<String>>::new());
    let senders = (0..SENDERS).map(async |sender| {
        for number in 0..EACH {
            let key = KEYS[(sender + number) % KEYS.len()];
            let body = format!("{sender}-{number}");
            let tx = begin(on.database()).await;
            send::<B>(&*tx, vec![keyed(key, &body)]).await;
            if number % 5 == 4 {
                tx.rollback().await;
                continue;
            }
            sent.borrow_mut().entry(key).or_default().push(body);
            tx.commit().await.unwrap();
        }
    });
    let sending = futures_util::future::join_all(senders);
    let servers = async {
        loop {
            // Two at a time, and neither for long.
            let _both = [
                relay::<B>(on.outbox(), &queue),
                relay::<B>(on.elsewhere(), &queue),
            ];
            tokio::time::sleep(LOOK * 10).await;
        }
    };
    tokio::select! {
        _ = sending => {}
        () = servers => {}
    }
    let relay = relay::<B>(on.outbox(), &queue);
    is_empty(&on, &relay).await;
    let sent = sent.into_inner();
    let taken = queue.taken.borrow();
    for key in KEYS {
        let of_key = taken.iter().filter(|it| it.key.as_deref() == Some(key));
        let bodies: Vec<_> = of_key.map(|it| str::from_utf8(&it.body).unwrap()).collect();
        assert_eq!(bodies, sent[key], "{key}");
    }
}

async fn transactions_without_a_key_wait_for_nobody<B: HasSharedOutbox>(on: B) {
    let queue = Rc::<Elsewhere>::default();
    let relay = relay::<B>(on.outbox(), &queue);
    let (first, second) = (begin(on.database()).await, begin(on.database()).await);
    send::<B>(&*first, vec![message("a"), keyed("k", "b")]).await;
    send::<B>(&*second, vec![message("c"), keyed("l", "d")]).await;
    second.commit().await.unwrap();
    assert_eq!(queue.gets(2, &relay).await, ["c", "d"]);
    first.commit().await.unwrap();
    assert_eq!(queue.gets(4, &relay).await, ["c", "d", "a", "b"]);
}
