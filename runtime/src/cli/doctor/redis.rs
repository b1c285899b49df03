//! What a Redis or Valkey server was found to be, and which of its settings weaken a promise. Those of queues are more than
//! those of locks, which a fence can make good.

use super::bindings::encryption;
use super::{Finding, Status};
use crate::state::redis::Inspection;

/// Judges it.
pub(super) fn findings(name: &str, shown: &str, found: &Inspection) -> Vec<Finding> {
    let about =
        |what: &str, status, text: &str| Finding::new(format!("{name} {what}"), status, text);
    let kept = if is_queue(name) { "messages" } else { "locks" };
    let server = format!("{} {} at {shown}", found.product, found.version);
    let tls = found.is_encrypted.then_some("used");
    let mut findings = vec![
        Finding::new(name, Status::Ok, server),
        encryption(name, tls, found.is_local, "use rediss:// in the URL"),
        match is_queue(name) {
            true => log_of_messages(name, found),
            false => log_of_locks(name, found),
        },
    ];
    if !found.takes_writes {
        let finding = about("writes", Status::Missing, "it takes no writes: a replica");
        findings.push(finding.next("bind the primary server"));
    }
    if found.is_cluster {
        let text = "it is part of a cluster, of which wrun knows one node";
        let finding = about("cluster", Status::Off, text);
        findings.push(finding.next("bind a server that is no cluster"));
    }
    match found.eviction.as_deref() {
        None | Some("noeviction") => {}
        Some(policy) => {
            let text = format!("{policy}: {kept} are thrown away when memory is short");
            let finding = about("eviction", Status::Off, &text);
            findings.push(finding.next("set maxmemory-policy to noeviction"));
        }
    }
    if found.replicas > 0 {
        let text = format!(
            "{} replicas, which may not know the last {kept}",
            found.replicas
        );
        findings.push(about("replicas", Status::Info, &text));
    }
    findings
}

/// One of several that decide by majority must not come back empty: then a lock that one of them has forgotten can be had
/// by two.
pub(super) fn of_several(name: &str, shown: &str, found: &Inspection) -> Vec<Finding> {
    let mut all = findings(name, shown, found);
    if !found.has_log {
        let finding = Finding::new(
            format!("{name} restart"),
            Status::Off,
            "it comes back empty, and may be the one that makes a majority twice",
        );
        all.push(finding.next(
            "turn on appendonly with appendfsync always, or start it again only after the longest lease",
        ));
    }
    all
}

fn is_queue(name: &str) -> bool {
    name.starts_with("queue.")
}

/// A server that forgets its locks in a crash gives them out twice; fences hold.
fn log_of_locks(name: &str, found: &Inspection) -> Finding {
    let name = format!("{name} durability");
    let fsync = fsync(found);
    match found.has_log {
        true if fsync == "always" => Finding::new(name, Status::Ok, ALWAYS),
        true => Finding::new(
            name,
            Status::Info,
            format!("appendonly, appendfsync {fsync}"),
        )
        .next("locks of the last moments are forgotten in a crash: commit with the guard"),
        false => Finding::new(name, Status::Info, "none: a restart forgets all locks")
            .next("commit with the guard, or turn on appendonly"),
    }
}

/// What was acknowledged is there after a crash only if each write is on the disk before its answer.
fn log_of_messages(name: &str, found: &Inspection) -> Finding {
    let name = format!("{name} durability");
    let next = "set appendonly yes and appendfsync always, or expect messages to be lost";
    match (found.has_log, fsync(found)) {
        (true, "always") if found.pauses_fsync => Finding::new(
            name,
            Status::Off,
            "appendfsync always, but no-appendfsync-on-rewrite yes: not while the log is written anew",
        )
        .next("set no-appendfsync-on-rewrite no"),
        (true, "always") => Finding::new(name, Status::Ok, ALWAYS),
        (true, UNKNOWN) => Finding::new(
            name,
            Status::Info,
            "appendonly; appendfsync is not known, by default a crash loses up to a second of what was acknowledged",
        ),
        (true, fsync) => {
            let lost = match fsync {
                "everysec" => "up to a second of what was acknowledged",
                _ => "what was acknowledged since the system wrote last",
            };
            let text = format!("appendonly, appendfsync {fsync}: a crash loses {lost}");
            Finding::new(name, Status::Off, text).next(next)
        }
        (false, _) => Finding::new(
            name,
            Status::Off,
            "appendonly no: a restart loses the messages since the last snapshot, or all",
        )
        .next(next),
    }
}

const ALWAYS: &str = "appendonly, appendfsync always";

const UNKNOWN: &str = "not known";

fn fsync(found: &Inspection) -> &str {
    found.fsync.as_deref().unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Inspection {
        Inspection {
            product: "Redis",
            version: "7.0".to_owned(),
            is_encrypted: false,
            is_local: true,
            takes_writes: true,
            replicas: 1,
            is_cluster: false,
            eviction: Some("allkeys-lru".to_owned()),
            has_log: true,
            fsync: Some("everysec".to_owned()),
            pauses_fsync: false,
        }
    }

    fn status(name: &str, found: &Inspection, what: &str) -> Option<Status> {
        let findings = findings(name, "redis://x", found);
        let name = format!("{name} {what}");
        let found = findings.iter().find(|finding| finding.name == name);
        found.map(|finding| finding.status)
    }

    #[test]
    fn server_that_may_forget_locks_says_so() {
        let of = |what: &str| status("lock.x", &found(), what);
        assert_eq!(of("eviction"), Some(Status::Off));
        assert_eq!(of("durability"), Some(Status::Info));
        assert_eq!(of("replicas"), Some(Status::Info));
        assert_eq!((of("writes"), of("cluster")), (None, None));
    }

    #[test]
    fn queue_is_durable_only_if_every_write_is_on_the_disk_before_its_answer() {
        for (has_log, fsync, expected) in [
            (true, Some("always"), Status::Ok),
            (true, Some("everysec"), Status::Off),
            (true, Some("no"), Status::Off),
            (true, None, Status::Info),
            (false, Some("always"), Status::Off),
        ] {
            let fsync = fsync.map(str::to_owned);
            let found = Inspection {
                has_log,
                fsync,
                ..found()
            };
            assert_eq!(status("queue.x", &found, "durability"), Some(expected));
        }
        let found = Inspection {
            fsync: Some("always".to_owned()),
            pauses_fsync: true,
            ..found()
        };
        assert_eq!(status("queue.x", &found, "durability"), Some(Status::Off));
    }
}
