//! `wrun doctor`: whether this machine has what wrun needs, and what would make a server here safer or faster.
//!
//! Looks, and changes nothing: what it makes to time the disk it removes again. Each group of things to look at is a file.

mod bindings;
mod confinement;
mod disk;
#[cfg(feature = "kafka")]
mod kafka;
mod mysql;
mod nats;
mod rabbitmq;
mod redis;
mod replica;
mod system;
mod tools;

use super::JsonArgs;
use super::print::print_as;
use crate::config::shared::SharedKeys;
use crate::config::{BindingArgs, Config, ServeArgs, Shared, SharedArgs, sandbox};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// What is to be served here: its settings count
    #[arg(default_value = ".")]
    path: PathBuf,
    /// The server's state folder [default: the one that `wrun serve PATH` would use]
    #[arg(short, long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// What guests may share
    #[command(flatten)]
    shared: SharedArgs,
    /// Where it is kept
    #[command(flatten)]
    bindings: BindingArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Ok,
    /// A server works without it, and less well.
    Off,
    /// No server starts without it.
    Missing,
    /// For people to judge.
    Info,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    status: Status,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Finding {
    fn new(name: impl Into<String>, status: Status, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status,
            found: found.into(),
            next: None,
        }
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// All of it.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether nothing is missing that is needed.
    ok: bool,
    findings: Vec<Finding>,
}

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let settings = Settings::of(args);
    let findings: Vec<Finding> = [
        system::look(),
        confinement::look(&settings.sandbox),
        disk::look(&settings.state),
        bindings::look(&args.bindings, &settings.shared),
        tools::look(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let report = Report {
        ok: findings
            .iter()
            .all(|finding| finding.status != Status::Missing),
        findings,
    };
    print_as(args.json.json, &report, text)?;
    Ok(match report.ok {
        true => ExitCode::Ok,
        false => ExitCode::Unavailable,
    })
}

/// What the settings of the application say of the machine.
struct Settings {
    state: PathBuf,
    sandbox: sandbox::Sandbox,
    shared: Shared,
}

impl Settings {
    /// Those of what is to be served, or the defaults if nothing is there yet.
    fn of(args: &DoctorArgs) -> Self {
        let serve = ServeArgs {
            path: args.path.clone(),
            state: args.state.clone(),
            shared: args.shared.clone(),
            ..ServeArgs::default()
        };
        match Config::load(&serve) {
            Ok(config) => Self {
                state: config.state.path,
                sandbox: config.sandbox,
                shared: config.shared,
            },
            Err(_) => Self {
                state: args.state.clone().unwrap_or_else(|| ".wrun".into()),
                sandbox: sandbox::Sandbox::default(),
                // Flags alone grant something without an application.
                shared: Shared::merge(&args.shared, SharedKeys::default(), Path::new("."))
                    .unwrap_or_default(),
            },
        }
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let names = report.findings.iter().map(|it| it.name.chars().count());
    let width = names.max().unwrap_or(0).max(18) + 2;
    for finding in &report.findings {
        let status = match finding.status {
            Status::Ok => "ok",
            Status::Off => "off",
            Status::Missing => "missing",
            Status::Info => "-",
        };
        text.push_str(&format!(
            "{status:<9}{:<width$}{}\n",
            finding.name, finding.found
        ));
        if let Some(next) = &finding.next {
            text.push_str(&format!("{:<9}{:<width$}next: {next}\n", "", ""));
        }
    }
    text.push_str(match report.ok {
        true => "\nwrun can serve here.\n",
        false => "\nwrun cannot serve here: something that it needs is missing.\n",
    });
    text
}
