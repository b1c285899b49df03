//! What a Kafka cluster was found to be, and whether its topics keep what wrun promises.

use super::bindings::encryption;
use super::{Finding, Status};
use crate::state::kafka::{Inspection, Topic};
use crate::state::queue::BODY_MAX;

/// Judges it.
pub(super) fn findings(name: &str, shown: &str, found: &Inspection) -> Vec<Finding> {
    let s = if found.brokers == 1 { "" } else { "s" };
    let tls = found.is_encrypted.then_some("used");
    let cluster = format!("Kafka at {shown}, {} broker{s}", found.brokers);
    let mut findings = vec![
        Finding::new(name, Status::Ok, cluster),
        encryption(name, tls, found.is_local, "use kafkas:// in the URL"),
    ];
    if !found.out_of_reach.is_empty() {
        let text = format!("brokers call themselves {}", found.out_of_reach.join(", "));
        let finding = Finding::new(format!("{name} brokers"), Status::Missing, text);
        findings.push(finding.next("name them like that in the URL, all ports and no mere addresses for names: the sandbox keeps wrun from others"));
    }
    for topic in &found.topics {
        findings.extend(of_topic(&format!("{name} topic {}", topic.name), topic));
    }
    let text = "become ids of messages; Kafka takes a second message with one";
    let finding = Finding::new(format!("{name} dedup ids"), Status::Info, text);
    findings.push(finding.next("have consumers call mark-processed with the id"));
    findings
}

fn of_topic(name: &str, topic: &Topic) -> Vec<Finding> {
    if topic.partitions == 0 {
        let finding = Finding::new(name, Status::Off, "it is not there");
        return vec![finding.next(
            "make it with kafka-topics.sh --create; brokers with auto.create.topics.enable make it by their own defaults",
        )];
    }
    let Topic {
        partitions,
        replicas,
        in_sync,
        settings,
        ..
    } = topic;
    let text = format!("{partitions} partitions, {replicas} copies, {in_sync} up to date");
    let weak = match *replicas {
        0 | 1 => {
            Some("what was acknowledged is lost with its broker: use a replication factor of 3")
        }
        _ => None,
    };
    let mut findings = vec![judged(name, text, weak)];
    let mut judge = |setting: &str, judge: &dyn Fn(&str) -> Option<&'static str>| {
        if let Some(value) = settings.get(setting) {
            let text = format!("{setting} {value}");
            findings.push(judged(&format!("{name} {setting}"), text, judge(value)));
        }
    };
    let number = |value: &str| value.parse::<i64>().unwrap_or(0);
    judge("min.insync.replicas", &|value| {
        (number(value) < 2)
            .then_some("one broker's word is enough for an acknowledgement: set it to 2")
    });
    judge("unclean.leader.election.enable", &|value| {
        (value == "true").then_some("acknowledged messages can be lost: set it to false")
    });
    judge("retention.ms", &|value| {
        (number(value) >= 0).then_some("messages that are older are deleted, handled or not: set it longer than any message may wait")
    });
    judge("retention.bytes", &|value| {
        (number(value) >= 0)
            .then_some("the oldest messages are deleted, handled or not: set it to -1")
    });
    judge("cleanup.policy", &|value| {
        value.contains("compact").then_some("of messages with one key all but the last are deleted, handled or not: set it to delete")
    });
    judge("max.message.bytes", &|value| {
        let is_small = number(value) < BODY_MAX as i64 + (32 << 10);
        is_small.then_some("larger messages are refused, which guests may send: set it to 1200000")
    });
    findings
}

fn judged(name: &str, text: String, weak: Option<&str>) -> Finding {
    match weak {
        None => Finding::new(name, Status::Ok, text),
        Some(next) => Finding::new(name, Status::Off, text).next(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(replicas: usize, settings: &[(&str, &str)]) -> Topic {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Topic {
            name: "jobs".to_owned(),
            partitions: 12,
            replicas,
            in_sync: replicas,
            settings: settings.iter().map(pair).collect(),
        }
    }

    fn status(found: &Inspection, what: &str) -> Option<Status> {
        let findings = findings("queue.jobs", "kafka://x", found);
        let name = format!("queue.jobs {what}");
        let found = findings.iter().find(|finding| finding.name == name);
        found.map(|finding| finding.status)
    }

    #[test]
    fn topics_that_weaken_a_promise_are_off() {
        let strong = [
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
            ("cleanup.policy", "delete"),
            ("max.message.bytes", "1200000"),
        ];
        let weak = [
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "true"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "1000"),
            ("cleanup.policy", "compact,delete"),
            ("max.message.bytes", "1048588"),
        ];
        for (replicas, settings, expected) in [(3, strong, Status::Ok), (1, weak, Status::Off)] {
            let found = Inspection {
                topics: vec![topic(replicas, &settings)],
                ..Inspection::default()
            };
            assert_eq!(status(&found, "topic jobs"), Some(expected));
            for (setting, _) in settings {
                let status = status(&found, &format!("topic jobs {setting}"));
                assert_eq!(status, Some(expected), "{setting}");
            }
        }
    }

    #[test]
    fn brokers_that_nobody_reaches_are_missing_and_topics_that_are_not_there_off() {
        let found = Inspection {
            out_of_reach: vec!["b.example:7001".to_owned()],
            topics: vec![Topic {
                name: "jobs".to_owned(),
                ..Topic::default()
            }],
            ..Inspection::default()
        };
        assert_eq!(status(&found, "brokers"), Some(Status::Missing));
        assert_eq!(status(&found, "topic jobs"), Some(Status::Off));
        assert_eq!(status(&found, "TLS"), Some(Status::Off));
    }
}
