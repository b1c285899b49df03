//! One round of one contender: start it, see that it answers rightly, warm it up, drive it, look at what that took.

use super::closed_loop::Wrk;
use super::contender::{Contender, Order, Programs};
use super::hogs::Hogs;
use super::running::Running;
use super::scenario::{Load, Place, Requests};
use super::{Answers, Sample, fixed_rate};
use crate::http1::Connection;
use crate::process;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How long a contender is driven before it counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long to wait for a first answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What there is to measure with.
#[derive(Debug)]
pub struct Setup {
    /// The contenders.
    pub programs: Programs,
    /// Who asks.
    pub wrk: Wrk,
    /// How many workers each contender has, unless the scenario says.
    pub workers: usize,
    /// How long each is driven.
    pub time: Duration,
}

/// Where workers and load are put.
#[derive(Debug, PartialEq)]
pub struct Cores {
    /// The number of workers.
    pub workers: usize,
    /// The workers' cores, if they may not use all.
    pub server: Option<Vec<usize>>,
    /// The load's cores, likewise.
    pub load: Option<Vec<usize>>,
}

impl Setup {
    /// Measures one round of a contender.
    ///
    /// # Errors
    ///
    /// What did not work.
    pub fn measure(
        &self,
        contender: Contender,
        component: &Path,
        requests: &Requests,
    ) -> Result<Sample, String> {
        let cores = cores(requests.place, self.workers, &process::cores(0))?;
        let running = self.programs.start(&Order {
            contender,
            guest: requests.guest,
            component,
            workers: cores.workers,
            cores: cores.server.as_deref(),
        })?;
        check(running.addr(), requests)
            .map_err(|why| format!("{why}; it says {}", running.last_words()))?;
        let _hogs = match requests.hogs {
            true => Hogs::start(&running, contender, cores.workers)?,
            false => Hogs::default(),
        };
        self.drive(running.addr(), requests, &cores, WARM_UP)?;
        let before = running.cpu_time();
        let answers = self.drive(running.addr(), requests, &cores, self.time)?;
        Ok(sample(
            &answers,
            &running,
            (!requests.hogs).then_some(before),
        ))
    }

    fn drive(
        &self,
        addr: SocketAddr,
        requests: &Requests,
        cores: &Cores,
        time: Duration,
    ) -> Result<Answers, String> {
        let request = &requests.request;
        match requests.load {
            Load::Closed { connections } => {
                let on = cores.load.as_deref();
                self.wrk.run(addr, request, connections, time, on)
            }
            Load::Rate {
                per_second,
                connections,
            } => fixed_rate::run(addr, request, (per_second, connections), time),
        }
    }
}

/// Sees that the server does what is asked of it.
fn check(addr: SocketAddr, requests: &Requests) -> Result<(), String> {
    let broken = |error| format!("it does not answer: {error}");
    let mut connection = Connection::try_open(addr, PATIENCE).map_err(broken)?;
    if let Some(target) = requests.guest.setup() {
        let setup = format!("GET {target} HTTP/1.1\r\nhost: bench.example\r\n\r\n");
        connection.try_send(setup).map_err(broken)?;
        connection.try_response().map_err(broken)?;
    }
    let bytes = fixed_rate::request_bytes(&requests.request);
    connection.try_send(bytes).map_err(broken)?;
    let response = connection.try_response().map_err(broken)?;
    match requests.request.is_answered_by(&response) {
        true => Ok(()),
        false => {
            let text: String = response.text().chars().take(80).collect();
            Err(format!("a wrong answer: {} {text}", response.status))
        }
    }
}

fn sample(answers: &Answers, running: &Running, cpu_before: Option<Duration>) -> Sample {
    let cpu = cpu_before.map(|before| running.cpu_time().saturating_sub(before));
    let memory = running.memory();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let us_each = |time: Duration| time.as_secs_f64() * 1e6 / answers.good.max(1) as f64;
    Sample {
        rate: answers.good as f64 / answers.took.as_secs_f64(),
        p50_ms: ms(answers.p50),
        p99_ms: ms(answers.p99),
        p999_ms: ms(answers.p999),
        cpu_us: cpu.map(us_each),
        load_cpu_us: us_each(answers.cpu),
        rss_mib: memory.rss_mib,
        pss_mib: memory.pss_mib,
        errors: answers.errors,
    }
}

/// Says where everything goes on a machine with these cores.
///
/// # Errors
///
/// If there are too few.
pub fn cores(place: Place, workers: usize, all: &[usize]) -> Result<Cores, String> {
    let anywhere = |workers| Cores {
        workers,
        server: None,
        load: None,
    };
    match place {
        Place::Anywhere => Ok(anywhere(workers)),
        Place::Crowded(workers) => Ok(anywhere(workers)),
        Place::Pinned(workers) => match all.split_at_checked(workers) {
            None => Err(format!("there are only {} cores", all.len())),
            Some((server, rest)) => Ok(Cores {
                workers,
                server: Some(server.to_vec()),
                load: Some(rest.to_vec()).filter(|rest| !rest.is_empty()),
            }),
        },
    }
}
