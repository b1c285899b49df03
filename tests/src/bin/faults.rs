//! `just faults [ROUNDS]`: the fault run, printed as a table. Fails if a promise is broken, or, with `--control`, if
//! none is: then the run could not notice.
//!
//! Usage: faults [--control] [ROUNDS [BINARY]]

use std::process::ExitCode;
use wrun_tests::faults::{Faults, Phase, Report};
use wrun_tests::guests::guest;
use wrun_tests::{Wrun, load, repository};

/// Enough to see, short enough for every change.
const ROUNDS: usize = 20;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let control = args.iter().any(|arg| arg == "--control");
    args.retain(|arg| arg != "--control");
    let rounds = args
        .first()
        .map_or(ROUNDS, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let binary = args
        .get(1)
        .map_or_else(|| repository().join("target/release/wrun"), Into::into);
    let faults = Faults::new(
        Wrun::new(binary).serve(guest("http_hello")).workers(2),
        rounds,
    );
    println!("{:<24} {:>5} {}  remarks", "fault", "times", load::HEADING);
    let phases: &[Phase] = if control {
        &[Phase::Control]
    } else {
        &Phase::ALL
    };
    let mut broken = false;
    for phase in phases {
        let Report {
            times,
            tally,
            broken_promises,
            remark,
        } = faults.run(*phase);
        println!("{:<24} {times:>5} {tally}  {remark}", phase.name());
        for promise in &broken_promises {
            println!("    broken: {promise}");
        }
        for sample in tally.samples {
            println!("    wrong answer: {sample}");
        }
        broken |= !broken_promises.is_empty();
    }
    match (control, broken) {
        (false, false) => println!("every promise was kept"),
        (true, true) => println!("the control was noticed"),
        (false, true) => println!("promises were broken"),
        (true, false) => println!("the control was not noticed: this run proves nothing"),
    }
    if broken == control {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
