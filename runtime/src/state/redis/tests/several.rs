//! Several servers of which a majority decides, on real ones: what one that is gone, stands still or has forgotten costs.

use super::*;
use crate::state::redis::parse;

/// Tests something on empty servers, if Redis is installed.
fn test(what: impl AsyncFnOnce(&mut Vec<Redis>)) {
    test_with(&["--appendonly", "no"], what);
}

/// Does so on servers that remember what they have acknowledged.
fn test_with(settings: &[&str], what: impl AsyncFnOnce(&mut Vec<Redis>)) {
    let nodes: Option<Vec<_>> = (0..3).map(|_| Redis::with(settings)).collect();
    let Some(mut nodes) = nodes else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let tested = timeout(DEADLINE, what(&mut nodes));
        tested.await.expect("the test hangs");
    });
}

async fn host(nodes: &[Redis], identity: &str) -> Host {
    let urls: Vec<String> = nodes.iter().map(|it| it.url(0)).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    Host::of(&urls, identity).await
}

/// Waits until so many servers are there for a host.
async fn sees(host: &Host, count: usize) {
    let here = || host.nodes.connections().0.iter().flatten().count();
    while here() != count {
        tokio::task::yield_now().await;
    }
}

const LOCK: &str = "wrun:{default}:lock:k";
const FENCE: &str = "wrun:{default}:fence";

fn holders(nodes: &[Redis]) -> Vec<String> {
    nodes.iter().map(|it| it.call(&["GET", LOCK])).collect()
}

#[test]
fn odd_number_of_different_servers_is_taken_and_no_other() {
    let count = |urls: &[&str]| parse(urls).map(|all| all.len());
    assert_eq!(count(&["redis://a"]), Ok(1));
    assert_eq!(count(&["redis://a", "redis://b", "rediss://c"]), Ok(3));
    for (urls, word) in [
        (&["redis://a", "redis://b"][..], "odd"),
        (
            &["redis://a", "redis://b", "redis://:s3cret@a:6379/2"],
            "twice",
        ),
        (&["redis://a"; 11], "3 to 9"),
    ] {
        let why = count(urls).unwrap_err();
        assert!(why.contains(word) && !why.contains("s3cret"), "{why}");
    }
}

#[test]
fn lock_is_in_all_servers_and_in_none_after_its_release() {
    test(async |nodes| {
        let (one, other) = (host(nodes, "one").await, host(nodes, "other").await);
        let first = one.locks.acquire(A, want(30_000)).await.unwrap();
        let owners = holders(nodes);
        assert!(owners[0].starts_with("one:") && owners.iter().all(|it| *it == owners[0]));
        let refused = other.locks.acquire(A, now(30_000)).await;
        assert_eq!(refused, Err(LockError::Timeout));
        let waiting = other.locks.acquire(B, want(30_000));
        one.locks.release(A).await.unwrap();
        assert!(waiting.await.unwrap() > first);
        other.locks.release(B).await.unwrap();
        other.locks.flush().await;
        assert_eq!(holders(nodes), ["$-1"; 3]);
    });
}

#[test]
fn one_server_of_three_that_is_killed_is_not_missed() {
    test(async |nodes| {
        let (one, other) = (host(nodes, "one").await, host(nodes, "other").await);
        one.locks.acquire(A, want(1_000)).await.unwrap();
        nodes[1].kill();
        sees(&one, 2).await;
        let believed = async {
            while one.locks.pin(&[A]).is_err() {
                tokio::task::yield_now().await;
            }
        };
        // Not only after a third of its time.
        let believed = timeout(Duration::from_millis(300), believed).await;
        assert!(believed.is_ok());
        let end = Instant::now() + Duration::from_millis(2_500);
        while Instant::now() < end {
            assert!(one.locks.pin(&[A]).is_ok());
            one.locks.heartbeat(A.session);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(one.locks.why_away(), None);
        let waiting = other.locks.acquire(B, want(30_000));
        one.locks.release(A).await.unwrap();
        waiting.await.unwrap();
    });
}

#[test]
fn one_server_of_three_that_stands_still_is_not_missed() {
    test(async |nodes| {
        let host = host(nodes, "one").await;
        nodes[0].pause();
        let begin = Instant::now();
        for _ in 0..5 {
            host.locks.acquire(A, want(30_000)).await.unwrap();
            assert!(host.locks.pin(&[A]).is_ok());
            host.locks.release(A).await.unwrap();
        }
        // No answer of the third was waited for.
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "{:?}",
            begin.elapsed()
        );
        nodes[0].resume();
    });
}

#[test]
fn majority_that_is_gone_is_said_at_once_and_comes_back() {
    test(async |nodes| {
        let mut host = host(nodes, "one").await;
        host.locks.acquire(A, want(30_000)).await.unwrap();
        nodes[0].kill();
        nodes[2].kill();
        sees(&host, 1).await;
        let why = host.locks.why_away().unwrap();
        assert!(why.starts_with("2 of 3 servers cannot be reached"), "{why}");
        let begin = Instant::now();
        let refused = host.locks.acquire(B, want(30_000)).await;
        assert!(
            matches!(refused, Err(LockError::Unavailable(_))),
            "{refused:?}"
        );
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert_eq!(host.locks.pin(&[A]).err(), Some(LockError::Lost));
        nodes[0].start_again();
        nodes[2].start_again();
        // They have forgotten it.
        assert_eq!(host.lost.recv().await, Some(A));
        host.locks.acquire(B, want(30_000)).await.unwrap();
    });
}

#[test]
fn lock_that_one_server_has_forgotten_is_put_back_when_it_is_renewed() {
    test(async |nodes| {
        let host = host(nodes, "one").await;
        host.locks.acquire(A, want(30_000)).await.unwrap();
        let owner = holders(nodes).remove(0);
        nodes[2].kill();
        sees(&host, 2).await;
        nodes[2].start_again();
        let known = async {
            while nodes[2].call(&["GET", LOCK]) != owner {
                tokio::task::yield_now().await;
            }
        };
        known.await;
        // So another one may go.
        nodes[0].kill();
        sees(&host, 2).await;
        host.locks.release(A).await.unwrap();
    });
}

/// What a crash without persistence costs: a server that has forgotten a lock makes up a majority with one that was never
/// asked for it. Only the token tells who was later.
#[test]
fn lock_is_had_by_two_when_the_server_that_both_majorities_have_in_common_has_forgotten_it() {
    test(async |nodes| {
        nodes[2].kill();
        // What is in here runs only when it is said to, as a process that is stopped now and then.
        let stopped = LocalSet::new();
        let begin = async {
            let host = host(nodes, "one").await;
            let token = host.locks.acquire(A, want(30_000)).await.unwrap();
            (host, token)
        };
        let (mut one, first) = stopped.run_until(begin).await;
        nodes[1].call(&["FLUSHALL"]);
        nodes[2].start_again();
        let other = host(nodes, "other").await;
        let second = other.locks.acquire(A, want(30_000)).await.unwrap();
        assert!(one.locks.pin(&[A]).is_ok() && other.locks.pin(&[A]).is_ok());
        assert!(second > first, "{second} after {first}");
        // The first one learns of it as soon as it asks.
        let asked = async {
            let told = loop {
                match one.locks.extend(A, 30_000).await {
                    // It has yet to connect to the one that was away.
                    Err(LockError::Unavailable(_)) => tokio::task::yield_now().await,
                    told => break told,
                }
            };
            assert_eq!(told, Err(LockError::Lost));
            assert_eq!(one.lost.recv().await, Some(A));
        };
        stopped.run_until(asked).await;
        assert!(other.locks.pin(&[A]).is_ok());
    });
}

#[test]
fn token_is_higher_also_when_the_server_that_gave_the_last_one_is_gone() {
    const AHEAD: u64 = 5_000_000_000_000_000;
    let settings = ["--appendonly", "yes", "--appendfsync", "always"];
    test_with(&settings, async |nodes| {
        let host = host(nodes, "one").await;
        let mut last = 0;
        for turn in 0..6 {
            // Its clock is far ahead of the others', as it were.
            let ahead = turn % 3;
            let token = AHEAD + 1_000_000 * turn as u64;
            nodes[ahead].call(&["SET", FENCE, &token.to_string()]);
            for next in 0..2 {
                let token = host.locks.acquire(A, want(30_000)).await.unwrap();
                assert!(token > last, "{token} after {last}");
                last = token;
                host.locks.release(A).await.unwrap();
                host.locks.flush().await;
                match next {
                    0 => nodes[ahead].kill(),
                    _ => nodes[ahead].start_again(),
                }
                sees(&host, 2 + next).await;
            }
        }
        assert!(last > AHEAD);
    });
}

/// The control: without what is noted in a majority, tokens go back.
#[test]
fn token_goes_back_if_the_last_one_is_noted_in_no_majority() {
    test(async |nodes| {
        let host = host(nodes, "one").await;
        nodes[0].call(&["SET", FENCE, "5000000000000000"]);
        let first = host.locks.acquire(A, want(30_000)).await.unwrap();
        host.locks.release(A).await.unwrap();
        host.locks.flush().await;
        nodes[1].call(&["DEL", FENCE]);
        nodes[2].call(&["DEL", FENCE]);
        nodes[0].kill();
        sees(&host, 2).await;
        assert!(host.locks.acquire(A, want(30_000)).await.unwrap() < first);
    });
}
