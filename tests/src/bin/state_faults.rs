//! `just state-faults [ROUNDS]`: sales and payments while workers and the state process are killed, printed as a table.
//! Fails if the books of one are wrong, or if the broken way to sell is not noticed: then the run could not notice.
//!
//! Usage: state_faults [ROUNDS [BINARY]]

use std::process::ExitCode;
use wrun_tests::guests::example;
use wrun_tests::murder::Victims;
use wrun_tests::sale::{Sale, Way};
use wrun_tests::{Launch, Wrun, checkout, repository};

/// Enough to see, short enough for every change.
const ROUNDS: usize = 1;

/// What is sold in each round, and to how many.
const STOCK: u32 = 400;
const BUYERS: u32 = 600;

/// Orders that are placed in each round.
const ORDERS: usize = 300;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let rounds = args
        .next()
        .map_or(ROUNDS, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let binary = args
        .next()
        .map_or_else(|| repository().join("target/release/wrun"), Into::into);
    let wrun = Wrun::new(binary);
    let launch = |name| wrun.serve(example(name)).workers(4);
    println!(
        "{:<10} {:<8} {:>5} {:>7} {:>6} {:>6} {:>8} {:>6}  books",
        "what", "killed", "round", "retries", "kills", "sold", "told so", "ms"
    );
    let mut wrong = false;
    for round in 1..=rounds {
        for way in Way::SOUND {
            for victims in [Victims::Workers, Victims::State, Victims::Both] {
                wrong |= !sell(&launch("inventory"), way, victims, round);
            }
        }
        wrong |= !pay(&launch("payments"), round);
    }
    let noticed = !sell(&launch("inventory"), Way::Memory, Victims::Nobody, 1);
    match (wrong, noticed) {
        (false, true) => println!("all books are right, and the control was noticed"),
        (true, _) => println!("books are wrong"),
        (false, false) => println!("the control was not noticed: this run proves nothing"),
    }
    if noticed && !wrong {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Holds one sale at a server of its own; tells whether the books are right.
fn sell(launch: &Launch, way: Way, victims: Victims, round: usize) -> bool {
    let server = launch.clone().start();
    let sale = Sale {
        way,
        stock: STOCK,
        buyers: BUYERS,
        victims,
    };
    let report = sale.hold(&server);
    println!(
        "{:<10} {:<8} {round:>5} {:>7} {:>6} {:>6} {:>8} {:>6}  {}",
        way.name(),
        victims.name(),
        report.retries,
        report.kills,
        report.stats.sold,
        report.acknowledged,
        report.took.as_millis(),
        verdict(&report.faults),
    );
    report.faults.is_empty()
}

fn pay(launch: &Launch, round: usize) -> bool {
    let server = launch.clone().start();
    let report = checkout::run(&server, ORDERS, Victims::Both);
    println!(
        "{:<10} {:<8} {round:>5} {:>7} {:>6} {:>6} {:>8} {:>6}  {}",
        "payments",
        Victims::Both.name(),
        "",
        report.kills,
        report.stats.charges,
        report.stats.paid,
        "",
        verdict(&report.faults),
    );
    report.faults.is_empty()
}

fn verdict(faults: &[String]) -> String {
    match faults {
        [] => "right".to_owned(),
        faults => format!("WRONG: {}", faults.join("; ")),
    }
}
