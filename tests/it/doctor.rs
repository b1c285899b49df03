//! `wrun doctor`: what it finds on this machine, and on one that lacks something.

use crate::wrun;
use nix::unistd::Uid;
use serde_json::Value;
use std::fs;
use wrun_tests::compromised::{landlock_abi, library};
use wrun_tests::guests::guest;
use wrun_tests::outcome::finding;
use wrun_tests::{Outcome, folder};

/// Runs it in a folder of its own, with these variables.
fn doctor(variables: &[(&str, &str)]) -> Outcome {
    let here = folder();
    let mut command = wrun().command();
    command.args(["doctor", "--json"]).current_dir(here.path());
    command.envs(variables.iter().copied());
    command.output().unwrap().into()
}

fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).expect("it prints JSON")
}

#[test]
fn every_layer_is_shown_and_nothing_that_is_needed_is_missing_here() {
    let outcome = doctor(&[]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let report = report(&outcome);
    assert_eq!(report["ok"], true);
    for name in [
        "kernel",
        "open files",
        "seccomp",
        "no_new_privs",
        "disk",
        "tried",
    ] {
        assert_eq!(finding(&report, name)["status"], "ok", "{name}: {report}");
    }
    if landlock_abi() >= 4 {
        assert_eq!(finding(&report, "landlock")["status"], "ok", "{report}");
    }
    let user = finding(&report, "user");
    match Uid::effective().is_root() {
        true => assert!(user["next"].as_str().unwrap().contains("--user"), "{user}"),
        false => assert_eq!(user["status"], "ok", "{user}"),
    }
}

#[test]
fn what_is_not_ok_comes_with_a_next_step() {
    for layer in ["landlock", "seccomp"] {
        let kernel = format!("without-{layer}");
        let preload = library().to_str().unwrap();
        let outcome = doctor(&[("LD_PRELOAD", preload), ("WRUN_TEST_KERNEL", &kernel)]);
        // A server would start here.
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let report = report(&outcome);
        let found = finding(&report, layer);
        assert_eq!(found["status"], "off", "{found}");
        assert!(found["next"].is_string(), "{found}");
    }
}

#[test]
fn what_the_manifest_requires_and_the_kernel_lacks_is_missing() {
    let here = folder();
    let manifest = format!(
        "component = \"{}\"\n[serve]\nsandbox = \"require\"\n",
        guest("http_hello").display()
    );
    fs::write(here.path().join("wrun.toml"), manifest).unwrap();
    let run = |kernel: &str| -> Outcome {
        let mut command = wrun().command();
        command.arg("doctor").arg(here.path());
        command
            .env("LD_PRELOAD", library())
            .env("WRUN_TEST_KERNEL", kernel);
        command.output().unwrap().into()
    };
    let outcome = run("without-seccomp");
    assert_eq!(outcome.code, Some(69), "{outcome:?}");
    assert!(
        outcome.stdout.contains("missing  seccomp"),
        "{}",
        outcome.stdout
    );
    if landlock_abi() >= 4 {
        assert_eq!(run("as-it-is").code, Some(0));
    }
}

#[test]
fn folder_that_nobody_can_write_to_is_missing() {
    // Nobody, root included, makes a file there.
    let outcome: Outcome = wrun().run(["doctor", "--state", "/proc"]);
    assert_eq!(outcome.code, Some(69), "{outcome:?}");
    assert!(
        outcome.stdout.contains("missing  disk"),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stdout.contains("--state"), "{}", outcome.stdout);
}

#[test]
fn it_leaves_nothing_behind() {
    let here = folder();
    let state = here.path().join("state");
    let outcome = wrun().run(["doctor".as_ref(), "--state".as_ref(), state.as_os_str()]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
}
