//! What a MariaDB or MySQL server was found to be, and which of its settings weaken a promise.

use super::bindings::encryption;
use super::{Finding, Status};
use crate::state::mysql::Inspection;

/// Judges it.
pub(super) fn findings(name: &str, shown: &str, found: &Inspection) -> Vec<Finding> {
    let about =
        |what: &str, status, text: String| Finding::new(format!("{name} {what}"), status, text);
    let server = format!("{} {} at {shown}", found.product, found.version);
    let mut findings = vec![
        Finding::new(name, Status::Ok, server),
        encryption(
            name,
            found.tls.as_deref(),
            found.is_local,
            "add ?sslmode=verify-full to the URL",
        ),
        about("isolation", Status::Ok, isolation(found)),
        durability(name, found),
        mode(name, found),
    ];
    if ["read_only", "innodb_read_only"]
        .iter()
        .any(|it| is_on(found, it))
    {
        let replica = "it takes no writes: a replica, or read-only".to_owned();
        let finding = about("writes", Status::Missing, replica);
        findings.push(
            finding.next("bind the primary server; a replica goes beside it, as replica.LABEL"),
        );
    }
    if !found.may_create {
        let right = "the URL's user may not make wrun's tables".to_owned();
        let finding = about("rights", Status::Missing, right);
        findings.push(finding.next("GRANT ALL ON that database TO that user"));
    }
    if found.others > 0 {
        let text = format!(
            "{} tables have no transactions: they are not InnoDB's",
            found.others
        );
        let finding = about("tables", Status::Off, text);
        findings.push(finding.next("ALTER TABLE … ENGINE = InnoDB"));
    }
    if is_on(found, "wsrep_on") {
        let text = "a Galera cluster: other nodes' reads are not serializable, and a crash of nodes has lost commits";
        let finding = about("cluster", Status::Off, text.to_owned());
        findings.push(finding.next("bind one server, or one node of it alone"));
    }
    let connections = found.setting("max_connections");
    let connections = format!("{connections} at most, all clients together");
    findings.push(about("connections", Status::Info, connections));
    findings
}

/// Newer servers have the one name, older ones the other.
fn isolation(found: &Inspection) -> String {
    let own = ["transaction_isolation", "tx_isolation"];
    let others = own
        .iter()
        .map(|it| found.setting(it))
        .find(|it| !it.is_empty());
    let others = others.unwrap_or("not known").to_lowercase();
    format!("serializable, as wrun asks for; {others} for others")
}

/// What was acknowledged is there after a crash only if these are so.
fn durability(name: &str, found: &Inspection) -> Finding {
    let has_log = is_on(found, "log_bin");
    let mut shown = Vec::new();
    let mut weak = Vec::new();
    for (setting, wanted, matters) in [
        ("innodb_flush_log_at_trx_commit", &["1", "3"][..], true),
        (
            "innodb_doublewrite",
            &["ON", "1", "DETECT_AND_RECOVER"],
            true,
        ),
        ("sync_binlog", &["1"], has_log),
    ] {
        let value = found.setting(setting);
        if !matters || value.is_empty() {
            continue;
        }
        shown.push(format!("{setting} {value}"));
        if !wanted.contains(&value) {
            weak.push(format!("{setting}={}", wanted.first().unwrap_or(&"1")));
        }
    }
    let name = format!("{name} durability");
    match weak.is_empty() {
        true => Finding::new(name, Status::Ok, shown.join(", ")),
        false => Finding::new(name, Status::Off, shown.join(", ")).next(format!(
            "what was acknowledged can be lost in a crash: set {}",
            weak.join(" and ")
        )),
    }
}

/// wrun's sessions have their own mode; what others write may be cut off, or never committed.
fn mode(name: &str, found: &Inspection) -> Finding {
    let name = format!("{name} sql_mode");
    let is_strict = found.setting("sql_mode").contains("STRICT_");
    match (is_strict, is_on(found, "autocommit")) {
        (true, true) => Finding::new(name, Status::Ok, "strict, for others too"),
        (false, _) => Finding::new(
            name,
            Status::Info,
            "strict, as wrun asks for; others' values are cut off where they do not fit",
        ),
        (true, false) => Finding::new(
            name,
            Status::Info,
            "strict; autocommit is off for others, whose transactions may keep wrun's waiting",
        ),
    }
}

fn is_on(found: &Inspection, name: &str) -> bool {
    ["ON", "1"].contains(&found.setting(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(settings: &[(&str, &str)]) -> Inspection {
        let usual = [
            ("innodb_flush_log_at_trx_commit", "1"),
            ("innodb_doublewrite", "ON"),
            ("sql_mode", "STRICT_TRANS_TABLES"),
            ("autocommit", "ON"),
        ];
        let all = usual.iter().chain(settings);
        Inspection {
            product: "MariaDB",
            version: "10.11".to_owned(),
            tls: None,
            is_local: true,
            may_create: true,
            others: 0,
            settings: all
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    fn status(found: &Inspection, what: &str) -> Option<Status> {
        let findings = findings("db.x", "mysql://x/y", found);
        let all_say_what_to_do = findings
            .iter()
            .all(|it| it.next.is_some() == matches!(it.status, Status::Off | Status::Missing));
        assert!(all_say_what_to_do, "{findings:?}");
        let named = |finding: &&Finding| finding.name == format!("db.x {what}");
        findings.iter().find(named).map(|finding| finding.status)
    }

    #[test]
    fn settings_that_lose_what_was_acknowledged_are_off() {
        let durability = |settings: &[(&str, &str)]| status(&found(settings), "durability");
        assert_eq!(durability(&[]), Some(Status::Ok));
        assert_eq!(
            durability(&[("innodb_flush_log_at_trx_commit", "2")]),
            Some(Status::Off)
        );
        assert_eq!(
            durability(&[("innodb_doublewrite", "OFF")]),
            Some(Status::Off)
        );
        // Without a log of changes it does not matter how that is written.
        assert_eq!(durability(&[("sync_binlog", "0")]), Some(Status::Ok));
        assert_eq!(
            durability(&[("sync_binlog", "0"), ("log_bin", "ON")]),
            Some(Status::Off)
        );
    }

    #[test]
    fn server_that_takes_no_writes_or_no_tables_is_missing() {
        assert_eq!(status(&found(&[]), "writes"), None);
        assert_eq!(
            status(&found(&[("read_only", "ON")]), "writes"),
            Some(Status::Missing)
        );
        let no_right = Inspection {
            may_create: false,
            others: 2,
            ..found(&[])
        };
        assert_eq!(status(&no_right, "rights"), Some(Status::Missing));
        assert_eq!(status(&no_right, "tables"), Some(Status::Off));
    }

    #[test]
    fn mode_of_others_is_told() {
        assert_eq!(status(&found(&[]), "sql_mode"), Some(Status::Ok));
        assert_eq!(
            status(&found(&[("sql_mode", "ANSI_QUOTES")]), "sql_mode"),
            Some(Status::Info)
        );
        assert_eq!(
            status(&found(&[("autocommit", "OFF")]), "sql_mode"),
            Some(Status::Info)
        );
    }
}
