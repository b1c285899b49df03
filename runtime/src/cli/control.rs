//! `wrun ps`, `reload`, `scale` and `stop`: one request to a running server, and its answer for people or as JSON.

use super::print::print_as;
use super::table::{bytes, seconds, table};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::ipc::{
    BindingStatus, Channel, ControlReply, ControlRequest, Processes, StateStatus, WorkerStatus,
};
use crate::state_folder;
use serde::Serialize;
use std::path::Path;

/// What `wrun reload --json` prints.
#[derive(Serialize)]
struct Reloaded {
    /// The generation that serves now.
    generation: u64,
}

/// `wrun ps`.
pub(super) fn ps(state: &Path, json: bool) -> Result<ExitCode, Failure> {
    match ask(&state_folder::connect(state)?, &ControlRequest::Ps)? {
        ControlReply::Processes(processes) => print_as(json, &processes, overview),
        reply => Err(unexpected(&reply)),
    }
}

/// `wrun reload`.
pub(super) fn reload(state: &Path, json: bool) -> Result<ExitCode, Failure> {
    match ask(&state_folder::connect(state)?, &ControlRequest::Reload)? {
        ControlReply::Reloaded { generation } => {
            let reloaded = Reloaded { generation };
            print_as(json, &reloaded, |_| {
                format!("generation {generation} serves\n")
            })
        }
        reply => Err(unexpected(&reply)),
    }
}

/// `wrun scale`.
pub(super) fn scale(state: &Path, workers: usize) -> Result<ExitCode, Failure> {
    match ask(
        &state_folder::connect(state)?,
        &ControlRequest::Scale { workers },
    )? {
        ControlReply::Done => Ok(ExitCode::Ok),
        reply => Err(unexpected(&reply)),
    }
}

/// `wrun stop`: returns when the server is gone.
pub(super) fn stop(state: &Path) -> Result<ExitCode, Failure> {
    let server = state_folder::connect(state)?;
    match ask(&server, &ControlRequest::Stop)? {
        ControlReply::Done => {}
        reply => return Err(unexpected(&reply)),
    }
    // The connection ends with the server.
    while let Ok(Some(_)) = server.recv::<ControlReply>() {}
    Ok(ExitCode::Ok)
}

/// Sends `request` and waits for the answer: as long as it takes, a reload may compile for minutes.
fn ask(server: &Channel, request: &ControlRequest) -> Result<ControlReply, Failure> {
    let lost = || "lost the connection to the server".to_owned();
    server.send(request).or_fail(ExitCode::Unavailable, lost)?;
    match server.recv().or_fail(ExitCode::Unavailable, lost)? {
        Some(ControlReply::Failed(failure)) => Err(failure),
        Some(reply) => Ok(reply),
        None => Err(Failure::new(
            ExitCode::Unavailable,
            "the server ended before it answered",
        )),
    }
}

fn unexpected(reply: &ControlReply) -> Failure {
    Failure::new(
        ExitCode::Internal,
        format!("the server gave an answer to another question: {reply:?}"),
    )
    .hint("is it another version of wrun?")
}

/// Formats the processes for people.
fn overview(processes: &Processes) -> String {
    let supervisor = &processes.supervisor;
    // A server that handles messages alone has no address.
    let at = match supervisor.urls.is_empty() {
        true => String::new(),
        false => format!(" at {}", supervisor.urls.join(" ")),
    };
    let mut text = format!(
        "wrun {} serves {}{at}\nsupervisor {}, {}, generation {}, up {}\n",
        supervisor.version,
        supervisor.path,
        supervisor.pid,
        supervisor.state,
        supervisor.generation,
        seconds(supervisor.uptime_s),
    );
    text.extend(processes.state.as_ref().map(state_line));
    text.extend(processes.bindings.iter().map(binding_line));
    let header = "SLOT PID GENERATION STATE REQUESTS IN-FLIGHT CONNECTIONS RESTARTS MEMORY UPTIME";
    let header: Vec<&str> = header.split(' ').collect();
    text.push('\n');
    text.push_str(&table(&header, processes.workers.iter().map(row)));
    text
}

fn state_line(state: &StateStatus) -> String {
    let pid = state.pid.map(|pid| format!(" {pid}")).unwrap_or_default();
    format!(
        "state process{pid}, {}, restarts {}, memory {}, up {}\n",
        state.state,
        state.restarts,
        bytes(state.rss_bytes),
        seconds(state.uptime_s),
    )
}

fn binding_line(binding: &BindingStatus) -> String {
    let how = match (binding.reachable, &binding.why) {
        (Some(true), None) => "reachable".to_owned(),
        (Some(true), Some(why)) => format!("reachable, though {why}"),
        (Some(false), Some(why)) if binding.name.starts_with("replica.") => {
            format!("away, what only reads goes to the primary: {why}")
        }
        (Some(false), Some(why)) => format!("away: {why}"),
        (Some(false), None) => "away".to_owned(),
        (None, _) => "not known to be reachable".to_owned(),
    };
    format!("{} is at {}, {how}\n", binding.name, binding.url)
}

fn row(worker: &WorkerStatus) -> Vec<String> {
    vec![
        worker.slot.to_string(),
        worker.pid.to_string(),
        worker.generation.to_string(),
        worker.state.clone(),
        worker.requests.to_string(),
        worker.in_flight.to_string(),
        worker.connections.to_string(),
        worker.restarts.to_string(),
        bytes(worker.rss_bytes),
        seconds(worker.uptime_s),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::SupervisorStatus;

    #[test]
    fn binding_that_does_without_some_of_its_servers_says_why() {
        let line = binding_line(&BindingStatus {
            name: "lock.default".into(),
            backend: "redis".into(),
            url: "redis://a,redis://b,redis://c".into(),
            reachable: Some(true),
            why: Some("1 of 3 servers cannot be reached".into()),
        });
        let expected = "lock.default is at redis://a,redis://b,redis://c, reachable, though 1 of 3 servers cannot be reached\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn replica_that_is_away_says_who_stands_in_for_it() {
        let line = binding_line(&BindingStatus {
            name: "replica.default".into(),
            backend: "postgres".into(),
            url: "postgres://b/shop".into(),
            reachable: Some(false),
            why: Some("it does not answer".into()),
        });
        let expected = "replica.default is at postgres://b/shop, away, what only reads goes to the primary: it does not answer\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn overview_has_a_line_for_every_process_with_its_columns_aligned() {
        let supervisor = SupervisorStatus {
            pid: 7,
            version: "1.2.3".into(),
            urls: vec!["http://127.0.0.1:80/".into()],
            path: "app.wasm".into(),
            generation: 2,
            state: "serving".into(),
            workers: 1,
            uptime_s: 61,
        };
        let worker = WorkerStatus {
            slot: 0,
            pid: 4242,
            generation: 2,
            state: "ready".into(),
            requests: 12_345_678_901,
            in_flight: 1,
            connections: 2,
            restarts: 3,
            rss_bytes: 3 << 20,
            uptime_s: 60,
        };
        let state = StateStatus {
            pid: Some(8),
            state: "ready".into(),
            restarts: 1,
            rss_bytes: 5 << 20,
            uptime_s: 3,
        };
        let away = BindingStatus {
            name: "db.default".into(),
            backend: "postgres".into(),
            url: "postgres://db/shop".into(),
            reachable: Some(false),
            why: Some("it does not answer".into()),
        };
        let text = overview(&Processes {
            supervisor,
            state: Some(state),
            bindings: vec![away],
            workers: vec![worker],
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "wrun 1.2.3 serves app.wasm at http://127.0.0.1:80/"
        );
        assert_eq!(lines[1], "supervisor 7, serving, generation 2, up 1m 1s");
        assert_eq!(
            lines[2],
            "state process 8, ready, restarts 1, memory 5.0 MiB, up 3s"
        );
        assert_eq!(
            lines[3],
            "db.default is at postgres://db/shop, away: it does not answer"
        );
        assert_eq!(
            lines[5].find("REQUESTS"),
            lines[6].find("12345678901"),
            "{text}"
        );
        assert_eq!(lines[5].find("MEMORY"), lines[6].find("3.0 MiB"), "{text}");
    }
}
