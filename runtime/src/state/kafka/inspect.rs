//! What a cluster says of itself, for `wrun doctor`: its brokers, and what the topics of a queue rest on.
//!
//! Looks, and changes nothing.

use super::address::Address;
use super::clients::{self, Quiet};
use super::line::{Names, silence, text};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long each answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    pub brokers: usize,
    /// Those that call themselves by names or ports that the sandbox keeps a server from.
    pub out_of_reach: Vec<String>,
    /// On this machine.
    pub is_local: bool,
    pub is_encrypted: bool,
    pub topics: Vec<Topic>,
}

/// One of the topics of a queue.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    pub name: String,
    /// None if it is not there.
    pub partitions: usize,
    /// The fewest copies of one of them, and of those that are up to date.
    pub replicas: usize,
    pub in_sync: usize,
    /// By name; nothing if the cluster does not tell.
    pub settings: BTreeMap<String, String>,
}

/// Finds out about the queue of a label, or why that is not possible.
pub async fn inspect(address: &Address, label: &str) -> Result<Inspection, String> {
    let names = Names::new(address, label);
    let config = clients::of_all(address);
    let made = AdminClient::from_config_and_context(&config, Quiet::default());
    let admin = made.map_err(|error| error.to_string())?;
    let clerk = clients::clerk(address, &names.group).map_err(|error| error.to_string())?;
    let silent = |error: KafkaError| {
        let why = silence(&clerk, &address.bootstrap());
        format!("{why}: {}", text(&error))
    };
    let all = clerk.fetch_metadata(None, ANSWER_MAX).map_err(silent)?;
    let reaches =
        |host: &str, port: i32| u16::try_from(port).is_ok_and(|port| address.reaches(host, port));
    let brokers = all.brokers().iter();
    let away = brokers.filter(|it| !reaches(it.host(), it.port()));
    let mut topics = Vec::new();
    for name in [names.topic, names.dead] {
        let found = all.topics().iter().find(|it| it.name() == name);
        let mut topic = found.map(standing).unwrap_or_default();
        if found.is_some() {
            topic.settings = settings(&admin, &name).await;
        }
        topics.push(Topic { name, ..topic });
    }
    Ok(Inspection {
        brokers: all.brokers().len(),
        out_of_reach: away
            .map(|it| format!("{}:{}", it.host(), it.port()))
            .collect(),
        is_local: address.is_local(),
        is_encrypted: address.is_encrypted(),
        topics,
    })
}

fn standing(topic: &MetadataTopic) -> Topic {
    let partitions = topic.partitions();
    let fewest = |count: fn(&rdkafka::metadata::MetadataPartition) -> usize| {
        partitions.iter().map(count).min().unwrap_or(0)
    };
    Topic {
        partitions: partitions.len(),
        replicas: fewest(|it| it.replicas().len()),
        in_sync: fewest(|it| it.isr().len()),
        ..Topic::default()
    }
}

async fn settings(admin: &AdminClient<Quiet>, topic: &str) -> BTreeMap<String, String> {
    let options = AdminOptions::new().request_timeout(Some(ANSWER_MAX));
    let what = [ResourceSpecifier::Topic(topic)];
    let asked = admin.describe_configs(&what, &options);
    let resources = asked.await.unwrap_or_default().into_iter().flatten();
    let entries = resources.flat_map(|resource| resource.entries);
    entries
        .filter_map(|entry| Some((entry.name, entry.value?)))
        .collect()
}
