//! The servers that are measured: each driven by a client of its own, and by wrun whose labels are bound to it. Their data are
//! in one folder, hence on one disk.

use super::postgres::Postgres;
use super::redis::Redis;
use super::subject::{Backing, Subject};
use super::{Contender, Work, kafka, mariadb, nats, rabbitmq, redis, redis_queue};
use crate::launch::Wrun;
use crate::mariadb::MariaDb;
use crate::nats::Nats;
use crate::rabbitmq::Rabbit;
use crate::tansu::Tansu;
use std::path::Path;
use tempfile::TempDir;

/// What is done with each kind of server.
const WITH_REDIS: [Work; 4] = [Work::Lock, Work::HotLock, Work::Send, Work::Handle];
// No batches: 128 at once on one row, serializable, are more than are put in an order by trying again.
const WITH_POSTGRES: [Work; 5] = [
    Work::Lock,
    Work::HotLock,
    Work::Transaction,
    Work::Send,
    Work::Handle,
];
const WITH_MARIADB: [Work; 2] = [Work::Transaction, Work::Batch];
const QUEUES: [Work; 2] = [Work::Send, Work::Handle];

/// The database of Redis that its own client has; wrun's are before it.
const OF_CLIENT: usize = 9;

/// The servers that are installed.
pub struct Engines {
    /// In memory, for locks.
    redis: Option<Redis>,
    /// For queues.
    durable: Option<crate::redis::Redis>,
    postgres: Result<Postgres, String>,
    mariadb: Option<MariaDb>,
    rabbitmq: Option<Rabbit>,
    nats: Option<Nats>,
    kafka: Option<Tansu>,
}

impl Engines {
    /// Starts them.
    ///
    /// # Panics
    ///
    /// If one is installed and does not serve.
    pub fn start(folder: &Path) -> Self {
        let own = || TempDir::new_in(folder).expect("the folder takes folders");
        let syncs = ["--appendonly", "yes", "--appendfsync", "always"];
        Self {
            redis: Redis::start(folder),
            durable: crate::redis::Redis::on(own(), &syncs),
            postgres: Postgres::start(folder),
            mariadb: MariaDb::on(own(), &[]),
            rabbitmq: Rabbit::on(own()),
            nats: Nats::on(own()),
            kafka: Tansu::for_test(),
        }
    }

    /// Returns everybody: wrun alone first, then each server's own client and wrun with it.
    pub fn contenders<'a>(
        &'a self,
        wrun: &Wrun,
        workers: usize,
        folder: &Path,
    ) -> Vec<Box<dyn Contender + 'a>> {
        let subject = |backing| Box::new(Subject::start(wrun, workers, folder, backing));
        let mut all: Vec<Box<dyn Contender + 'a>> = vec![subject(Backing::embedded())];
        if let (Some(locks), Some(queues)) = (&self.redis, &self.durable) {
            all.push(Box::new(locks));
            all.push(Box::new(redis_queue::Native::new(queues, OF_CLIENT)));
            let (locks, queues) = (locks.url(), queues.local_url());
            let binds = move |number: usize| {
                let of = |url: &str| format!("{url}?db={number}");
                vec![("lock.default", of(&locks)), ("queue.jobs", of(&queues))]
            };
            all.push(subject(Backing::new("wrun/redis", &WITH_REDIS, binds)));
        }
        if let Ok(postgres) = &self.postgres {
            all.push(Box::new(postgres));
            let urls: Vec<_> = (0..2).map(|number| postgres.database(number)).collect();
            let binds = move |number: usize| {
                ["db.default", "lock.default", "queue.jobs"]
                    .map(|label| (label, urls[number].clone()))
                    .into()
            };
            all.push(subject(Backing::new(
                "wrun/postgres",
                &WITH_POSTGRES,
                binds,
            )));
        }
        if let Some(mariadb) = &self.mariadb {
            all.push(Box::new(mariadb::Native::new(mariadb)));
            let urls: Vec<_> = ["wrun0", "wrun1"]
                .iter()
                .map(|name| {
                    mariadb.create(name);
                    mariadb.local_url(name)
                })
                .collect();
            let binds = move |number: usize| vec![("db.default", urls[number].clone())];
            all.push(subject(Backing::new("wrun/mariadb", &WITH_MARIADB, binds)));
        }
        if let Some(rabbitmq) = &self.rabbitmq {
            all.push(Box::new(rabbitmq::Native::new(rabbitmq)));
            let urls: Vec<_> = (0..2).map(|_| rabbitmq.virtual_host()).collect();
            let binds = move |number: usize| vec![("queue.jobs", urls[number].clone())];
            all.push(subject(Backing::new("wrun/rabbitmq", &QUEUES, binds)));
        }
        if let Some(nats) = &self.nats {
            all.push(Box::new(nats::Native::new(nats)));
            let urls = [1, 2].map(|number| nats.account(number));
            let binds = move |number: usize| vec![("queue.jobs", urls[number].clone())];
            all.push(subject(Backing::new("wrun/nats", &QUEUES, binds)));
        }
        if let Some(broker) = &self.kafka {
            all.push(Box::new(kafka::Native::new(broker)));
            let urls = ["wrun0.", "wrun1."].map(|prefix| {
                let cluster = broker.cluster();
                cluster.with_queue(prefix, "jobs", kafka::PARTITIONS)
            });
            let binds = move |number: usize| vec![("queue.jobs", urls[number].clone())];
            all.push(subject(Backing::new("wrun/kafka", &QUEUES, binds)));
        }
        all
    }

    /// Says what was measured, or why it was not.
    pub fn notes(&self) -> Vec<String> {
        let redis = self.redis.as_ref().map(|redis| redis.version().to_owned());
        let mariadb = self.mariadb.as_ref().map(MariaDb::version);
        let rabbitmq = self.rabbitmq.as_ref().map(Rabbit::version);
        let nats = self.nats.as_ref().map(Nats::version);
        let kafka = self.kafka.as_ref().map(Tansu::version);
        vec![
            redis.unwrap_or_else(|| format!("redis-server is missing: {}", redis::INSTALL)),
            self.postgres
                .as_ref()
                .map_or_else(Clone::clone, Postgres::version),
            mariadb
                .unwrap_or_else(|| "MariaDB is missing: apt-get install mariadb-server".to_owned()),
            rabbitmq.unwrap_or_else(|| {
                "RabbitMQ is missing: apt-get install rabbitmq-server".to_owned()
            }),
            nats.unwrap_or_else(|| "NATS is missing: apt-get install nats-server".to_owned()),
            kafka.map_or_else(
                || "Tansu, for Kafka, is missing: apt-get install python3-venv".to_owned(),
                |version| format!("{version}, in memory, for Kafka"),
            ),
        ]
    }
}
