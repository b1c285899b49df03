//! What a replica of a database's server was found to be. A server starts without it: what only reads then goes to the
//! primary.

use super::bindings::encryption;
use super::{Finding, Status};
use crate::state::replica::{Following, Replica};

/// Judges that of the database that is bound as `primary`.
pub(super) fn findings(name: &str, primary: &str, shown: &str, found: &Replica) -> Vec<Finding> {
    let about =
        |what: &str, status, text: String| Finding::new(format!("{name} {what}"), status, text);
    let server = format!("{} at {shown}", found.server);
    let mut findings = vec![
        Finding::new(name, Status::Ok, server),
        encryption(
            name,
            found.tls.as_deref(),
            found.is_local,
            "add ?sslmode=verify-full to the URL",
        ),
    ];
    if found.is_of_primary == Some(false) {
        let text = format!(
            "it follows another server than {primary}: what is read there is not what was written"
        );
        let finding = about("primary", Status::Missing, text);
        findings.push(finding.next(format!("bind a replica of {primary}, or leave {name} out")));
    }
    if found.takes_writes {
        let text = "it takes writes of its own: no replica, or one that may come to differ";
        let finding = about("writes", Status::Off, text.to_owned());
        findings.push(finding.next(format!(
            "bind a standby, or set read_only there; or leave {name} out"
        )));
        return findings;
    }
    findings.push(match &found.following {
        Following::Yes => about("following", Status::Ok, format!("it follows {primary}")),
        Following::No(why) => about("following", Status::Off, why.clone())
            .next("what is read there gets older: have it follow again"),
        Following::Unknown => about(
            "following",
            Status::Info,
            "not known: its user may not look (SLAVE MONITOR, or REPLICATION CLIENT)".to_owned(),
        ),
    });
    if let Some(lag) = &found.lag {
        findings.push(about("lag", Status::Info, lag.clone()));
    }
    findings
}

/// It is away.
pub(super) fn away(name: &str, shown: &str, why: &str) -> Finding {
    let text = format!("{shown}: {why}; what only reads goes to the primary");
    Finding::new(name, Status::Off, text).next(format!(
        "check the binding {name}, and that the replica runs there"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Replica {
        Replica {
            server: "PostgreSQL 15.1".to_owned(),
            tls: None,
            is_local: true,
            takes_writes: false,
            is_of_primary: Some(true),
            following: Following::Yes,
            lag: Some("0 s".to_owned()),
        }
    }

    fn status(found: &Replica, what: &str) -> Option<Status> {
        let findings = findings("replica.x", "db.x", "postgres://y/x", found);
        let all_say_what_to_do = findings
            .iter()
            .all(|it| it.next.is_some() == matches!(it.status, Status::Off | Status::Missing));
        assert!(all_say_what_to_do, "{findings:?}");
        let named = |finding: &&Finding| finding.name == format!("replica.x {what}");
        findings.iter().find(named).map(|finding| finding.status)
    }

    #[test]
    fn replica_that_follows_is_ok_and_how_far_behind_it_is_is_for_people_to_judge() {
        assert_eq!(status(&found(), "following"), Some(Status::Ok));
        assert_eq!(status(&found(), "lag"), Some(Status::Info));
        assert_eq!(status(&found(), "writes"), None);
        assert_eq!(status(&found(), "primary"), None);
    }

    #[test]
    fn what_is_no_replica_or_does_not_follow_is_off_and_one_of_another_server_may_not_be() {
        let takes_writes = Replica {
            takes_writes: true,
            ..found()
        };
        assert_eq!(status(&takes_writes, "writes"), Some(Status::Off));
        let stopped = Replica {
            following: Following::No("it is paused".to_owned()),
            ..found()
        };
        assert_eq!(status(&stopped, "following"), Some(Status::Off));
        let unknown = Replica {
            following: Following::Unknown,
            lag: None,
            ..found()
        };
        assert_eq!(status(&unknown, "following"), Some(Status::Info));
        let of_another = Replica {
            is_of_primary: Some(false),
            ..found()
        };
        assert_eq!(status(&of_another, "primary"), Some(Status::Missing));
    }
}
