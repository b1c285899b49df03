//! `wrun ps`, `reload`, `scale` and `stop`: one request to a running server, and its answer for people or as JSON.

use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::ipc::{Channel, ControlReply, ControlRequest, Processes, WorkerStatus};
use crate::state_folder;
use serde::Serialize;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

/// `wrun ps`.
pub(super) fn ps(state: &Path, json: bool) -> Result<ExitCode, Failure> {
    match ask(&state_folder::connect(state)?, &ControlRequest::Ps)? {
        ControlReply::Processes(processes) if json => print_json(&processes),
        ControlReply::Processes(processes) => print(&table(&processes)),
        reply => Err(unexpected(&reply)),
    }
}

/// `wrun reload`.
pub(super) fn reload(state: &Path, json: bool) -> Result<ExitCode, Failure> {
    match ask(&state_folder::connect(state)?, &ControlRequest::Reload)? {
        ControlReply::Reloaded { generation } if json => {
            print_json(&serde_json::json!({ "generation": generation }))
        }
        ControlReply::Reloaded { generation } => {
            print(&format!("generation {generation} serves\n"))
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

fn print_json(value: &impl Serialize) -> Result<ExitCode, Failure> {
    let text = serde_json::to_string_pretty(value)
        .or_fail(ExitCode::Internal, || "cannot write JSON".to_owned())?;
    print(&format!("{text}\n"))
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // `wrun ps | head` has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            ExitCode::System,
            format!("cannot write to stdout: {error}"),
        )),
        _ => Ok(ExitCode::Ok),
    }
}

/// Formats the processes for people.
fn table(processes: &Processes) -> String {
    let supervisor = &processes.supervisor;
    let mut text = format!(
        "{} serves {} at {}\nsupervisor {}, {}, generation {}, up {}\n\n",
        format_args!("wrun {}", supervisor.version),
        supervisor.path,
        supervisor.urls.join(" "),
        supervisor.pid,
        supervisor.state,
        supervisor.generation,
        uptime(supervisor.uptime_s),
    );
    let header = "SLOT PID GENERATION STATE REQUESTS IN-FLIGHT CONNECTIONS RESTARTS MEMORY UPTIME";
    let mut rows: Vec<Vec<String>> = vec![header.split(' ').map(str::to_owned).collect()];
    rows.extend(processes.workers.iter().map(row));
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
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
        bytesize::ByteSize(worker.rss_bytes).to_string(),
        uptime(worker.uptime_s),
    ]
}

fn uptime(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::SupervisorStatus;

    #[test]
    fn table_has_a_line_for_every_worker_with_its_columns_aligned() {
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
        let text = table(&Processes {
            supervisor,
            workers: vec![worker],
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "wrun 1.2.3 serves app.wasm at http://127.0.0.1:80/"
        );
        assert_eq!(lines[1], "supervisor 7, serving, generation 2, up 1m 1s");
        assert_eq!(
            lines[3].find("REQUESTS"),
            lines[4].find("12345678901"),
            "{text}"
        );
        assert_eq!(lines[3].find("MEMORY"), lines[4].find("3.0 MiB"), "{text}");
    }
}
