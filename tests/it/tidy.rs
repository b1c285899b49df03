//! The tree as ARCHITECTURE.md describes it: arrows run one way, files are short and say what they are.
//!
//! Each rule is a function from a file to complaints, and is tried on a made-up file that breaks it.

use std::fs;
use std::path::{Path, PathBuf};
use wrun_tests::repository;

/// A module may name only those after it.
const CHAIN: [&str; 6] = ["cli", "supervisor", "worker", "engine", "host", "state"];

/// Modules that any other may name, and that name only each other.
const LEAVES: [&str; 9] = [
    "config",
    "exit_code",
    "failure",
    "ipc",
    "listener",
    "log",
    "package",
    "sandbox",
    "state_folder",
];

/// The most lines of a file before its tests.
const LINES_MAX: usize = 400;

/// A source file: its path from the top of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Returns the path below `runtime/src`.
    fn in_runtime(&self) -> Option<&str> {
        self.path.strip_prefix("runtime/src/")
    }

    /// Returns the lines before the file's own tests, without comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        let before_tests = self
            .text
            .split("\n#[cfg(test)]\nmod ")
            .next()
            .unwrap_or_default();
        before_tests
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default())
    }
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in ["runtime", "tests", "guest-sdk", "examples"] {
        collect(&repository().join(folder), &mut sources);
    }
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    // Parts of the tree that do not exist yet have no files to check.
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry can be read").path())
        .collect();
    for path in paths {
        let name = path
            .file_name()
            .expect("an entry has a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "target" && name != "node_modules" && !name.starts_with('.') {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source is text");
            let path = path
                .strip_prefix(repository())
                .expect("a file of the repository")
                .display()
                .to_string();
            sources.push(Source { path, text });
        }
    }
}

fn made_up(path: &str, text: &str) -> Source {
    Source {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

/// Returns the top modules that the code names as `crate::…`.
fn named_modules(source: &Source) -> Vec<String> {
    let code: String = source.code().collect::<Vec<_>>().join("\n");
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => named.extend(heads_of_group(group)),
            None => named.push(word(rest)),
        }
    }
    named
}

/// Returns the first word of each item of a `{a::b, c::{d, e}}` whose opening brace is gone.
fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut item_starts) = (0_usize, true);
    let mut heads = Vec::new();
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => item_starts = true,
            char if depth == 0 && item_starts && !char.is_whitespace() => {
                heads.push(word(&group[at..]));
                item_starts = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|char| char.is_alphanumeric() || *char == '_')
        .collect()
}

fn arrows(source: &Source) -> Vec<String> {
    let Some(path) = source.in_runtime() else {
        return Vec::new();
    };
    let module = path.split(['/', '.']).next().unwrap_or_default();
    if matches!(module, "lib" | "main" | "fuzz") {
        return Vec::new();
    }
    let place = |name: &str| CHAIN.iter().position(|link| *link == name);
    let is_leaf = |name: &str| LEAVES.contains(&name);
    if place(module).is_none() && !is_leaf(module) {
        return vec![format!(
            "{path}: {module} has no place in the order of modules"
        )];
    }
    let allowed = |named: &str| {
        named == module
            || is_leaf(named)
            || matches!((place(module), place(named)), (Some(from), Some(to)) if from < to)
    };
    let named = named_modules(source)
        .into_iter()
        .filter(|named| place(named).is_some() || is_leaf(named));
    named
        .filter(|named| !allowed(named))
        .map(|named| format!("{path} names {named}"))
        .collect()
}

fn wasmtime_is_named_where_it_may_be(source: &Source) -> Vec<String> {
    let Some(path) = source.in_runtime() else {
        return Vec::new();
    };
    if ["engine", "host"].contains(&path.split(['/', '.']).next().unwrap_or_default()) {
        return Vec::new();
    }
    let named = source.code().filter(|line| line.contains("wasmtime"));
    named
        .map(|line| format!("{path} names wasmtime: {}", line.trim()))
        .collect()
}

fn fork_is_called_where_it_may_be(source: &Source) -> Vec<String> {
    let Some(path) = source.in_runtime() else {
        return Vec::new();
    };
    let calls = |line: &&str| {
        line.match_indices("fork(")
            .any(|(at, _)| !line[..at].ends_with("child."))
    };
    let called = source
        .code()
        .filter(calls)
        .filter(|_| path != "supervisor/spawn.rs");
    called
        .map(|line| format!("{path} forks: {}", line.trim()))
        .collect()
}

fn file_says_what_it_is(source: &Source) -> Vec<String> {
    let first = source.text.lines().find(|line| !line.starts_with("#!"));
    let says = first.is_some_and(|line| line.starts_with("//! ") && line.len() > 20);
    (!says)
        .then(|| format!("{} does not begin by saying what it is", source.path))
        .into_iter()
        .collect()
}

fn file_is_short(source: &Source) -> Vec<String> {
    let is_tests = |path: &str| {
        path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("/model.rs")
    };
    if source.in_runtime().is_some_and(is_tests) {
        return Vec::new();
    }
    let lines = source
        .text
        .split("\n#[cfg(test)]\n")
        .next()
        .unwrap_or_default()
        .lines()
        .count();
    (lines > LINES_MAX)
        .then(|| format!("{} has {lines} lines", source.path))
        .into_iter()
        .collect()
}

fn file_is_named_after_its_module(source: &Source) -> Vec<String> {
    source
        .path
        .ends_with("/mod.rs")
        .then(|| format!("{} has a name that says nothing", source.path))
        .into_iter()
        .collect()
}

/// Checks all sources, and that the rule complains of `offender`.
fn assert_rule(rule: fn(&Source) -> Vec<String>, offenders: &[Source]) {
    for offender in offenders {
        assert!(
            !rule(offender).is_empty(),
            "the rule does not notice {}:\n{}",
            offender.path,
            offender.text
        );
    }
    let complaints: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn arrows_between_modules_run_one_way() {
    assert_rule(
        arrows,
        &[
            made_up(
                "runtime/src/engine/limits.rs",
                "use crate::worker::Worker;\n",
            ),
            made_up(
                "runtime/src/worker.rs",
                "fn f() { crate::supervisor::run() }\n",
            ),
            made_up(
                "runtime/src/host/http.rs",
                "use crate::{config::Limits, engine::{self, Handler}};\n",
            ),
            made_up("runtime/src/config.rs", "use crate::engine::Key;\n"),
            made_up("runtime/src/helpers.rs", "use crate::config::Config;\n"),
        ],
    );
    assert!(
        arrows(&made_up(
            "runtime/src/worker.rs",
            "use crate::{config::Config, engine::Handler};\n"
        ))
        .is_empty()
    );
}

#[test]
fn only_engine_and_host_name_wasmtime() {
    assert_rule(
        wasmtime_is_named_where_it_may_be,
        &[made_up(
            "runtime/src/worker/connection.rs",
            "use wasmtime::Store;\n",
        )],
    );
}

#[test]
fn only_spawn_forks() {
    assert_rule(
        fork_is_called_where_it_may_be,
        &[made_up(
            "runtime/src/supervisor.rs",
            "let child = unsafe { fork() }?;\n",
        )],
    );
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    assert_rule(
        file_says_what_it_is,
        &[
            made_up("tests/it/a.rs", "use std::fs;\n"),
            made_up("tests/it/b.rs", "//! x\n"),
        ],
    );
}

#[test]
fn no_file_is_long() {
    assert_rule(
        file_is_short,
        &[made_up("runtime/src/cli.rs", &"\n".repeat(LINES_MAX + 1))],
    );
}

#[test]
fn no_file_is_called_mod() {
    assert_rule(
        file_is_named_after_its_module,
        &[made_up(
            "runtime/src/worker/mod.rs",
            "//! A worker of many.\n",
        )],
    );
}

#[test]
fn architecture_names_every_source_file_and_no_other() {
    let text =
        fs::read_to_string(repository().join("runtime/ARCHITECTURE.md")).expect("it is there");
    let sources = sources();
    let files: Vec<&str> = sources.iter().filter_map(Source::in_runtime).collect();
    for file in &files {
        assert!(text.contains(file), "ARCHITECTURE.md does not name {file}");
    }
    for word in text.split(|char: char| !char.is_alphanumeric() && !"/_.-".contains(char)) {
        let is_path = word.ends_with(".rs") && word.contains('/') && !word.starts_with("tests/");
        let file = word
            .trim_start_matches("runtime/")
            .trim_start_matches("src/");
        assert!(
            !is_path || files.contains(&file),
            "ARCHITECTURE.md names {word}, which is not there"
        );
    }
}
