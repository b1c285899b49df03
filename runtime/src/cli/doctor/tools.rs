//! The tools that build guests. None is needed to serve a component that is built.

use super::{Finding, Status};
use std::path::Path;
use std::process::{Command, Stdio};

/// The target of Rust guests.
const TARGET: &str = "wasm32-wasip2";

pub(super) fn look() -> Vec<Finding> {
    vec![
        tool("cargo", "Rust guests: https://rustup.rs"),
        target(),
        tool(
            "node",
            "JavaScript and TypeScript guests: Node.js 20 or newer",
        ),
        tool(
            "npm",
            "JavaScript and TypeScript guests: it comes with Node.js",
        ),
        tool("python3", "Python guests: Python 3 with venv"),
    ]
}

fn tool(name: &str, what_for: &str) -> Finding {
    match answer(name, &["--version"]) {
        Some(version) => Finding::new(name, Status::Info, version),
        None => Finding::new(name, Status::Info, "not there").next(format!("for {what_for}")),
    }
}

/// Asks the compiler and not rustup, because a distribution's Rust has no rustup.
fn target() -> Finding {
    let libraries = answer("rustc", &["--print", "target-libdir", "--target", TARGET]);
    match libraries.is_some_and(|folder| Path::new(&folder).is_dir()) {
        true => Finding::new(TARGET, Status::Info, "there"),
        false => Finding::new(TARGET, Status::Info, "not there")
            .next(format!("for Rust guests: rustup target add {TARGET}")),
    }
}

/// Returns the first line that a tool answers with.
fn answer(tool: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(tool)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next().unwrap_or_default().to_owned())
}
