//! What a `wrun` command that ended has left: its status and what it printed.

use serde_json::Value;
use std::process::Output;

/// The end of a command.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit status, or `None` if a signal ended it.
    pub code: Option<i32>,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

/// Returns what a report of `wrun doctor --json` says of `name`.
///
/// # Panics
///
/// If it says nothing.
#[track_caller]
pub fn finding(report: &Value, name: &str) -> Value {
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["name"] == name);
    found
        .unwrap_or_else(|| panic!("no {name}: {report}"))
        .clone()
}

impl Outcome {
    /// Checks that the command succeeded, and returns what it printed.
    ///
    /// # Panics
    ///
    /// If it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "the command failed: {self:?}");
        self.stdout
    }

    /// Checks the form of every error of wrun: one line that says what, one that says what to change, nothing else.
    ///
    /// # Panics
    ///
    /// If the status is another one, the form is another one, or a text of `says` is missing.
    #[track_caller]
    pub fn fails_with(&self, code: i32, says: &[&str]) {
        self.fails_after_its_log_with(code, says);
        let lines = self.stderr.lines().count();
        assert_eq!(lines, 2, "not one line and one hint: {self:?}");
    }

    /// Does the same for a server that had processes to start, and to log about, before it failed.
    ///
    /// # Panics
    ///
    /// As above.
    #[track_caller]
    pub fn fails_after_its_log_with(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "another exit status: {self:?}");
        let is_logged = |line: &&str| line.starts_with('{');
        let lines: Vec<&str> = self.stderr.lines().skip_while(is_logged).collect();
        assert_eq!(lines.len(), 2, "not one line and one hint: {self:?}");
        assert!(
            lines[0].starts_with("wrun: "),
            "the first line says what: {self:?}"
        );
        assert!(
            lines[1].starts_with("  hint: "),
            "the second line is a hint: {self:?}"
        );
        for text in says {
            assert!(self.stderr.contains(text), "{text:?} is missing: {self:?}");
        }
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
