//! What a RabbitMQ server was found to be, and whether it keeps what wrun promises.

use super::bindings::encryption;
use super::{Finding, Status};
use crate::state::rabbitmq::Inspection;

/// The first version whose quorum queues send dead letters at least once.
const OLDEST: (u32, u32) = (3, 10);

/// Judges it.
pub(super) fn findings(name: &str, shown: &str, found: &Inspection) -> Vec<Finding> {
    let server = format!("{} {} at {shown}", found.product, found.version);
    let tls = found.is_encrypted.then_some("used");
    let queues = format!("{name} quorum queues");
    let mut findings = vec![
        Finding::new(name, Status::Ok, server),
        encryption(name, tls, found.is_local, "use amqps:// in the URL"),
        match is_old(&found.version) {
            Some(false) => Finding::new(queues, Status::Ok, "with dead letters at least once"),
            Some(true) => Finding::new(
                queues,
                Status::Missing,
                "too old to send dead letters at least once",
            )
            .next("use RabbitMQ 3.10 or newer"),
            None => Finding::new(queues, Status::Info, "not known: the version tells nothing"),
        },
    ];
    if found.is_blocked {
        let text = "it takes no messages: an alarm, it is short of memory or disk";
        let finding = Finding::new(format!("{name} alarm"), Status::Missing, text);
        findings.push(finding.next("see rabbitmqctl status there: free memory, or the disk"));
    }
    let text = "become ids of messages; RabbitMQ takes a second message with one";
    let finding = Finding::new(format!("{name} dedup ids"), Status::Info, text);
    findings.push(finding.next("have consumers call mark-processed with the id"));
    findings
}

/// Tells whether a version is too old; nothing if it does not look like one.
fn is_old(version: &str) -> Option<bool> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let (major, minor) = (parts.next()??, parts.next()??);
    Some((major, minor) < OLDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(found: &Inspection, what: &str) -> Option<Status> {
        let findings = findings("queue.x", "amqp://x", found);
        let name = format!("queue.x {what}");
        let found = findings.iter().find(|finding| finding.name == name);
        found.map(|finding| finding.status)
    }

    #[test]
    fn server_that_is_too_old_or_takes_nothing_is_missing() {
        let found = |version: &str, is_blocked| Inspection {
            product: "RabbitMQ".to_owned(),
            version: version.to_owned(),
            is_encrypted: false,
            is_local: false,
            is_blocked,
        };
        for (version, expected) in [
            ("3.9.29", Status::Missing),
            ("3.10.8", Status::Ok),
            ("4.0.0-rc.1", Status::Ok),
            ("unknown", Status::Info),
        ] {
            let status = status(&found(version, false), "quorum queues");
            assert_eq!(status, Some(expected), "{version}");
        }
        let blocked = found("3.10.8", true);
        assert_eq!(status(&blocked, "alarm"), Some(Status::Missing));
        assert_eq!(status(&blocked, "TLS"), Some(Status::Off));
    }
}
