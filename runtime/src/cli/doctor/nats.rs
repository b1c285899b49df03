//! What a NATS server was found to be, and what weakens a promise. When it syncs it tells nobody who is not its operator.

use super::bindings::encryption;
use super::{Finding, Status};
use crate::state::nats::Inspection;
use crate::state::queue::BODY_MAX;

/// The first version that can be told to sync before it answers.
const SYNCS_SINCE: (u32, u32) = (2, 10);

/// What a message has beside its body, at most.
const REST_MAX: u64 = 64 << 10;

/// Judges it.
pub(super) fn findings(name: &str, shown: &str, found: &Inspection) -> Vec<Finding> {
    let about =
        |what: &str, status, text: String| Finding::new(format!("{name} {what}"), status, text);
    let server = format!("NATS {} with JetStream at {shown}", found.version);
    let tls = found.is_encrypted.then_some("used");
    let mut findings = vec![
        Finding::new(name, Status::Ok, server),
        encryption(name, tls, found.is_local, "use tls:// in the URL"),
        durability(name, found),
    ];
    if let Some(cluster) = &found.cluster {
        let replicas = found.replicas.unwrap_or(1);
        let text = format!("{replicas} of the servers of {cluster} keep each stream");
        findings.push(match replicas {
            1 => about("replicas", Status::Off, format!("{text} that wrun makes")).next(
                "add ?replicas=3 to the URL, or expect the queue to be away with that server",
            ),
            _ => about("replicas", Status::Ok, text),
        });
    }
    if found.max_payload < BODY_MAX as u64 + REST_MAX {
        let text = format!(
            "{} bytes at most, headers included: larger ones are refused",
            found.max_payload
        );
        let finding = about("messages", Status::Info, text);
        findings.push(finding.next("set max_payload to 2MB if bodies of 1 MiB are to be sent"));
    }
    let kept = match found.max_storage {
        Some(most) => format!("{} of {most} bytes", found.storage),
        None => format!("{} bytes, not limited", found.storage),
    };
    findings.push(about("storage", Status::Info, kept));
    findings
}

/// What was acknowledged is there after a power failure only if it was on the disk before.
fn durability(name: &str, found: &Inspection) -> Finding {
    let name = format!("{name} durability");
    if version(&found.version) < SYNCS_SINCE {
        let text = "synced every 2 minutes: a power failure loses what was acknowledged since";
        return Finding::new(name, Status::Off, text)
            .next("use NATS 2.10 or later with sync_interval: always");
    }
    let text = "sync_interval cannot be seen; by default a power failure loses up to 2 minutes of what was acknowledged";
    Finding::new(name, Status::Info, text)
        .next("set sync_interval: always in the server's jetstream block")
}

fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|it| it.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(found: &Inspection, what: &str) -> Option<Status> {
        let findings = findings("queue.x", "nats://x", found);
        let name = format!("queue.x {what}");
        let weak = |it: &&Finding| matches!(it.status, Status::Off | Status::Missing);
        assert!(findings.iter().filter(weak).all(|it| it.next.is_some()));
        let found = findings.iter().find(|finding| finding.name == name);
        found.map(|finding| finding.status)
    }

    #[test]
    fn server_that_cannot_sync_before_it_answers_is_said_to_lose_messages() {
        for (version, expected) in [
            ("2.9.10", Status::Off),
            ("2.10.0", Status::Info),
            ("3.0.0-beta", Status::Info),
            ("", Status::Off),
        ] {
            let found = Inspection {
                version: version.to_owned(),
                ..Inspection::default()
            };
            assert_eq!(status(&found, "durability"), Some(expected), "{version}");
        }
    }

    #[test]
    fn cluster_that_keeps_each_stream_once_is_said_to() {
        let mut found = Inspection {
            max_payload: 2 << 20,
            ..Inspection::default()
        };
        assert_eq!(status(&found, "replicas"), None);
        assert_eq!(status(&found, "messages"), None);
        found.cluster = Some("C1".to_owned());
        assert_eq!(status(&found, "replicas"), Some(Status::Off));
        found.replicas = Some(3);
        assert_eq!(status(&found, "replicas"), Some(Status::Ok));
        found.max_payload = 1 << 20;
        assert_eq!(status(&found, "messages"), Some(Status::Info));
    }
}
