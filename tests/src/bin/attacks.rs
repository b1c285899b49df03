//! `just attacks`: runs the tests that hold the list of attacks, and prints the list. Fails if one does not hold.
//!
//! Usage: attacks [FILE], where FILE has what a run of all tests printed: then none is run again.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};
use wrun_tests::attacks::{CASES, Held};
use wrun_tests::repository;

/// Marks a test of the library rather than of the binary.
const LIBRARY: &str = "wrun::";

fn main() -> ExitCode {
    let tests = CASES.iter().flat_map(|case| match case.held {
        Held::By(tests) => tests,
        Held::Not(_) => &[],
    });
    let (library, binary): (Vec<&str>, Vec<&str>) =
        tests.partition(|test| test.starts_with(LIBRARY));
    let library: Vec<&str> = library
        .iter()
        .filter_map(|test| test.strip_prefix(LIBRARY))
        .collect();
    let passed = match std::env::args().nth(1) {
        Some(file) => {
            let printed = std::fs::read(&file).expect("the file is there");
            named(&String::from_utf8_lossy(&printed))
        }
        None => {
            let mut passed = pass(&["--test", "it"], &binary);
            passed.extend(pass(&["--lib"], &library));
            passed
        }
    };
    println!("{:>2}  {:<64} {:<50} held", "", "attack", "expected");
    let mut failed = 0;
    for case in CASES {
        let held = match case.held {
            Held::Not(why) => format!("no test: {why}"),
            Held::By(tests) => {
                let broken: Vec<&str> = tests
                    .iter()
                    .copied()
                    .filter(|test| !passed.contains(test.strip_prefix(LIBRARY).unwrap_or(test)))
                    .collect();
                failed += usize::from(!broken.is_empty());
                match broken.as_slice() {
                    [] => "yes".to_owned(),
                    broken => format!("NO: {}", broken.join(", ")),
                }
            }
        };
        println!(
            "{:>2}  {:<64} {:<50} {held}",
            case.number, case.attack, case.expected
        );
    }
    if failed > 0 {
        println!("{failed} of {} do not hold", CASES.len());
        return ExitCode::FAILURE;
    }
    println!("all hold");
    ExitCode::SUCCESS
}

/// Runs these tests of the package `wrun` and returns those that passed. What cargo and failed tests have to say goes to
/// stderr.
fn pass(target: &[&str], tests: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--release", "--package", "wrun"])
        .args(target)
        .args(["--", "--exact"])
        .args(tests)
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        eprintln!("{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    named(&text)
}

/// Returns the tests that passed, of what a test run printed. Those of the library and of the binary have no name in common.
fn named(printed: &str) -> BTreeSet<String> {
    let passed = printed
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok"));
    passed.map(str::to_owned).collect()
}
