//! The servers that labels are bound to: whether they can be reached, and whether they keep what wrun promises.

use super::{Finding, Status};
use crate::config::{BindingArgs, Bindings, Secret, Shared, each_url};
use crate::failure::Failure;
#[cfg(not(feature = "kafka"))]
use crate::state::WITHOUT_KAFKA;
#[cfg(feature = "kafka")]
use crate::state::kafka;
use crate::state::{mysql, nats, postgres, rabbitmq, redis};

/// Tries each of them.
pub(super) fn look(args: &BindingArgs, shared: &Shared) -> Vec<Finding> {
    let read = Bindings::load(args, shared).and_then(|bindings| {
        let urls = bindings.resolve()?;
        Ok((bindings, urls))
    });
    let (bindings, urls) = match read {
        Ok(read) => read,
        Err(failure) => return vec![of_failure(failure)],
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return vec![Finding::new("bindings", Status::Missing, error.to_string())],
    };
    let mut findings = Vec::new();
    for (name, bound) in bindings.list() {
        let Some(url) = urls.get(&name) else {
            continue;
        };
        if let Some(label) = name.strip_prefix("replica.") {
            let primary = format!("db.{label}");
            if let Some(of) = urls.get(&primary) {
                findings.extend(runtime.block_on(replica(
                    &name,
                    &primary,
                    &bound.shown,
                    (url, of),
                )));
            }
            continue;
        }
        findings.extend(match bound.backend.as_str() {
            "redis" => runtime.block_on(redis(&name, &bound.shown, url)),
            "rabbitmq" => runtime.block_on(rabbitmq(&name, &bound.shown, url)),
            "nats" => runtime.block_on(nats(&name, &bound.shown, url)),
            "kafka" => runtime.block_on(kafka(&name, &bound.shown, url)),
            "mysql" => runtime.block_on(mysql(&name, &bound.shown, url)),
            _ => runtime.block_on(postgres(&name, &bound.shown, url)),
        });
    }
    findings
}

fn of_failure(failure: Failure) -> Finding {
    let finding = Finding::new("bindings", Status::Missing, failure.message);
    match failure.hint {
        Some(hint) => finding.next(hint),
        None => finding,
    }
}

async fn postgres(name: &str, shown: &str, url: &Secret) -> Vec<Finding> {
    let address = match postgres::Address::parse(url) {
        Ok(address) => address,
        Err(why) => return vec![wrong(name, &why)],
    };
    match postgres::inspect(&address).await {
        Ok(found) => of_postgres(name, shown, &found),
        Err(why) => vec![away(name, shown, &why, "PostgreSQL")],
    }
}

async fn mysql(name: &str, shown: &str, url: &Secret) -> Vec<Finding> {
    let address = match mysql::Address::parse(url) {
        Ok(address) => address,
        Err(why) => return vec![wrong(name, &why)],
    };
    match mysql::inspect(&address).await {
        Ok(found) => super::mysql::findings(name, shown, &found),
        Err(why) => vec![away(name, shown, &why, "MariaDB or MySQL")],
    }
}

/// Tries a replica, and compares it with its primary.
async fn replica(
    name: &str,
    primary: &str,
    shown: &str,
    (url, of): (&Secret, &Secret),
) -> Vec<Finding> {
    let inspected = match url.starts_with("postgres") {
        true => match (postgres::Address::parse(url), postgres::Address::parse(of)) {
            (Err(why), _) => return vec![wrong(name, &why)],
            // That is told of the primary.
            (_, Err(_)) => return Vec::new(),
            (Ok(replica), Ok(primary)) => postgres::inspect_replica(&replica, &primary).await,
        },
        false => match (mysql::Address::parse(url), mysql::Address::parse(of)) {
            (Err(why), _) => return vec![wrong(name, &why)],
            (_, Err(_)) => return Vec::new(),
            (Ok(replica), Ok(primary)) => mysql::inspect_replica(&replica, &primary).await,
        },
    };
    match inspected {
        Ok(found) => super::replica::findings(name, primary, shown, &found),
        Err(why) => vec![super::replica::away(name, shown, &why)],
    }
}

async fn rabbitmq(name: &str, shown: &str, url: &Secret) -> Vec<Finding> {
    let address = match rabbitmq::Address::parse(url) {
        Ok(address) => address,
        Err(why) => return vec![wrong(name, &why)],
    };
    match rabbitmq::inspect(&address).await {
        Ok(found) => super::rabbitmq::findings(name, shown, &found),
        Err(why) => vec![away(name, shown, &why, "RabbitMQ")],
    }
}

async fn nats(name: &str, shown: &str, url: &Secret) -> Vec<Finding> {
    let address = match nats::Address::parse(url) {
        Ok(address) => address,
        Err(why) => return vec![wrong(name, &why)],
    };
    match nats::inspect(&address).await {
        Ok(found) => super::nats::findings(name, shown, &found),
        Err(why) => vec![away(name, shown, &why, "nats-server with JetStream")],
    }
}

#[cfg(feature = "kafka")]
async fn kafka(name: &str, shown: &str, url: &Secret) -> Vec<Finding> {
    let address = match kafka::Address::parse(url) {
        Ok(address) => address,
        Err(why) => return vec![wrong(name, &why)],
    };
    let label = name.strip_prefix("queue.").unwrap_or(name);
    match kafka::inspect(&address, label).await {
        Ok(found) => super::kafka::findings(name, shown, &found),
        Err(why) => vec![away(name, shown, &why, "Kafka")],
    }
}

#[cfg(not(feature = "kafka"))]
async fn kafka(name: &str, _: &str, _: &Secret) -> Vec<Finding> {
    vec![
        Finding::new(name, Status::Missing, WITHOUT_KAFKA)
            .next("use a wrun that was built with it"),
    ]
}

/// Tries one server, or each of several.
async fn redis(name: &str, shown: &str, urls: &Secret) -> Vec<Finding> {
    let addresses = match redis::parse(&each_url(urls)) {
        Ok(addresses) => addresses,
        Err(why) => return vec![wrong(name, &why)],
    };
    let several = addresses.len() > 1;
    let mut findings = Vec::new();
    for ((number, address), shown) in (1..).zip(&addresses).zip(each_url(shown)) {
        let name = match several {
            true => format!("{name} {number}"),
            false => name.to_owned(),
        };
        findings.extend(match redis::inspect(address).await {
            Ok(found) if several => super::redis::of_several(&name, shown, &found),
            Ok(found) => super::redis::findings(&name, shown, &found),
            Err(why) => vec![away(&name, shown, &why, "Redis or Valkey")],
        });
    }
    findings
}

fn wrong(name: &str, why: &str) -> Finding {
    Finding::new(name, Status::Missing, format!("its URL is wrong: {why}"))
        .next(format!("correct what the binding {name} names"))
}

fn away(name: &str, shown: &str, why: &str, product: &str) -> Finding {
    Finding::new(name, Status::Missing, format!("{shown}: {why}")).next(format!(
        "check the binding {name}, and that {product} runs there"
    ))
}

fn of_postgres(name: &str, shown: &str, found: &postgres::Inspection) -> Vec<Finding> {
    let postgres::Inspection {
        version, isolation, ..
    } = found;
    let about =
        |what: &str, status, text: String| Finding::new(format!("{name} {what}"), status, text);
    let server = format!("PostgreSQL {version} at {shown}");
    let isolation = format!("serializable, as wrun asks for; {isolation} for others");
    let mut findings = vec![
        Finding::new(name, Status::Ok, server),
        encryption(
            name,
            found.tls.as_deref(),
            found.is_local,
            "add ?sslmode=verify-full to the URL",
        ),
        about("isolation", Status::Ok, isolation),
        durability(name, found),
    ];
    if !found.takes_writes {
        let replica = "it takes no writes: a replica, or read-only".to_owned();
        let finding = about("writes", Status::Missing, replica);
        findings.push(
            finding.next("bind the primary server; a replica goes beside it, as replica.LABEL"),
        );
    }
    if !found.has_schema {
        let right = "the URL's user may not make wrun's schema".to_owned();
        let finding = about("rights", Status::Missing, right);
        findings.push(finding.next("GRANT CREATE ON DATABASE … TO that user"));
    }
    let connections = format!("{} at most, all clients together", found.connections_max);
    findings.push(about("connections", Status::Info, connections));
    findings
}

pub(super) fn encryption(name: &str, tls: Option<&str>, is_local: bool, next: &str) -> Finding {
    let name = format!("{name} TLS");
    match tls {
        Some(version) => Finding::new(name, Status::Ok, version),
        None if is_local => Finding::new(name, Status::Info, "none, on this machine"),
        None => Finding::new(
            name,
            Status::Off,
            "none: what is sent can be read on its way",
        )
        .next(next),
    }
}

/// What was acknowledged is there after a crash only if these are as they are by default.
fn durability(name: &str, found: &postgres::Inspection) -> Finding {
    let name = format!("{name} durability");
    let settings = found.durability.iter();
    let shown = |(setting, value): &(&str, String)| format!("{setting} {value}");
    let all: Vec<String> = settings.clone().map(shown).collect();
    let weak = |(_, value): &&(&'static str, String)| value == "off";
    let weak: Vec<&str> = settings.filter(weak).map(|(setting, _)| *setting).collect();
    match weak.is_empty() {
        true => Finding::new(name, Status::Ok, all.join(", ")),
        false => Finding::new(name, Status::Off, all.join(", ")).next(format!(
            "what was acknowledged can be lost in a crash: turn on {}",
            weak.join(" and ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::postgres::Inspection;

    fn found() -> Inspection {
        Inspection {
            version: "15.1".to_owned(),
            tls: None,
            is_local: false,
            isolation: "read committed".to_owned(),
            takes_writes: true,
            has_schema: true,
            durability: vec![("fsync", "on".to_owned())],
            connections_max: "100".to_owned(),
        }
    }

    fn status(found: &Inspection, what: &str) -> Option<Status> {
        let findings = of_postgres("db.x", "postgres://x/y", found);
        let named = |finding: &&Finding| finding.name == format!("db.x {what}");
        let status = findings.iter().find(named).map(|finding| finding.status);
        let all_say_what_to_do = findings
            .iter()
            .all(|it| it.next.is_some() == matches!(it.status, Status::Off | Status::Missing));
        assert!(all_say_what_to_do, "{findings:?}");
        status
    }

    #[test]
    fn what_can_be_listened_to_is_off_unless_it_is_on_this_machine() {
        assert_eq!(status(&found(), "TLS"), Some(Status::Off));
        let local = Inspection {
            is_local: true,
            ..found()
        };
        assert_eq!(status(&local, "TLS"), Some(Status::Info));
        let tls = Some("TLSv1.3".to_owned());
        assert_eq!(
            status(&Inspection { tls, ..found() }, "TLS"),
            Some(Status::Ok)
        );
    }

    #[test]
    fn server_that_takes_no_writes_or_no_schema_is_missing() {
        assert_eq!(status(&found(), "writes"), None);
        assert_eq!(status(&found(), "rights"), None);
        let replica = Inspection {
            takes_writes: false,
            has_schema: false,
            ..found()
        };
        assert_eq!(status(&replica, "writes"), Some(Status::Missing));
        assert_eq!(status(&replica, "rights"), Some(Status::Missing));
    }
}
