//! Guests and clients that mean harm: what each of them gets, and that nobody else notices. The table of all cases, with
//! the tests that hold them, is in `wrun_tests::attacks`; `just attacks` prints it.

mod calls;
mod compile;
mod cpu_memory;
mod cross_request;
mod files_net;
mod http_out;
mod outbound;
mod state;

use crate::{serve, test_files, wrun};
use std::fs;
use wrun_tests::attacks::{CASES, Held};
use wrun_tests::components::put;
use wrun_tests::hostile::Hostile;
use wrun_tests::{Baseline, Launch, Server, TempDir, folder};

/// A server of a guest that answers GET `/` as long as it is served well.
struct Target {
    server: Server,
    baseline: Baseline,
    // Removed after the server is gone.
    _folder: Option<TempDir>,
}

impl Target {
    /// Starts a server and sees what it looks like unharmed.
    fn start(launch: Launch) -> Self {
        let server = launch.start();
        Self {
            baseline: Baseline::of(&server),
            server,
            _folder: None,
        }
    }

    fn guest(name: &str) -> Self {
        Self::start(serve(name))
    }

    /// Starts a server of a component that is made for the test.
    fn of(hostile: &Hostile, flags: impl FnOnce(Launch) -> Launch) -> Self {
        let folder = folder();
        let launch = wrun().serve(put(folder.path(), &hostile.component()));
        Self {
            _folder: Some(folder),
            ..Self::start(flags(launch))
        }
    }

    /// Attacks, checks the status, and that nothing is left of it.
    #[track_caller]
    fn answers(&self, method: &str, path: &str, status: u16) -> String {
        let response = self.server.connect().exchange(method, path, &[], &[]);
        let text = response.text();
        assert_eq!(response.status, status, "{method} {path}: {text}");
        self.is_unharmed();
        text
    }

    #[track_caller]
    fn is_unharmed(&self) {
        self.baseline.holds(&self.server);
    }
}

#[test]
fn every_case_of_the_list_is_held_by_a_test_or_has_a_reason_not_to_be() {
    let numbers: Vec<u32> = CASES.iter().map(|case| case.number).collect();
    assert_eq!(numbers, (1..=65).collect::<Vec<_>>());
    let files = test_files();
    for case in CASES {
        let tests = match case.held {
            Held::By(tests) => tests,
            Held::Not(why) => {
                assert!(!why.is_empty(), "{}", case.number);
                continue;
            }
        };
        assert!(!tests.is_empty(), "{}", case.number);
        for test in tests {
            assert!(
                is_a_test(test, &files),
                "case {}: no test {test}",
                case.number
            );
        }
    }
}

/// Tells whether `module::name` is a test of this target, or of the package's own for one that begins with `wrun::`.
fn is_a_test(test: &str, files: &[(String, String)]) -> bool {
    let (module, name) = test.rsplit_once("::").expect("a path");
    let named = format!("#[test]\nfn {name}() ");
    match module.strip_prefix("wrun::") {
        None => files
            .iter()
            .any(|(file, text)| file.replace('/', "::") == module && text.contains(&named)),
        Some(module) => {
            let path = module.trim_end_matches("::tests").replace("::", "/");
            let path = wrun_tests::repository().join(format!("runtime/src/{path}.rs"));
            let text = fs::read_to_string(path).unwrap_or_default();
            text.contains(&format!("fn {name}("))
        }
    }
}

#[test]
fn test_that_is_not_there_is_noticed() {
    let files = test_files();
    assert!(is_a_test(
        "limits::endless_recursion_is_500_and_harms_nobody",
        &files
    ));
    assert!(!is_a_test("limits::nothing_is_limited", &files));
    assert!(!is_a_test(
        "log::endless_recursion_is_500_and_harms_nobody",
        &files
    ));
}
