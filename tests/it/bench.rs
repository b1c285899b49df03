//! The parts of `just bench`: what it asks, how it reads what others print, and how its tables come about.

use crate::serve;
use std::time::Duration;
use wrun_tests::bench::closed_loop::parse;
use wrun_tests::bench::contender::Contender::{self, Hyper, Node, Wasmtime, Wrun};
use wrun_tests::bench::figures::{median, quantile, range};
use wrun_tests::bench::guests::Guest;
use wrun_tests::bench::report::{self, Entry};
use wrun_tests::bench::requests::{Cores, cores};
use wrun_tests::bench::running::{Memory, parse_rollup, url};
use wrun_tests::bench::scenario::{Answer, Goal, Place, Request, SCENARIOS, Work};
use wrun_tests::bench::table::Table;
use wrun_tests::bench::{Answers, Sample, fixed_rate};

/// The guests of `tests/guests` that are measured without state.
const GUESTS: [(Guest, &str); 6] = [
    (Guest::HelloBindings, "http_hello"),
    (Guest::HelloRust03, "service_hello"),
    (Guest::Echo, "http_echo"),
    (Guest::Stream, "http_stream"),
    (Guest::Toil, "http_toil"),
    (Guest::Spin, "http_spin"),
];

#[test]
fn guests_answer_what_is_asked_of_them() {
    let mut asked = 0;
    for scenario in &SCENARIOS {
        let Work::Requests(requests) = &scenario.work else {
            continue;
        };
        let guest = GUESTS.iter().find(|(guest, _)| *guest == requests.guest);
        let Some((_, name)) = guest else {
            continue;
        };
        let server = serve(name).start();
        let mut connection = server.connect();
        connection.send(fixed_rate::request_bytes(&requests.request));
        let response = connection.response();
        assert!(
            requests.request.is_answered_by(&response),
            "{}: {}",
            scenario.name,
            response.status
        );
        let wrong = Request {
            answer: Answer::Text("something else"),
            ..requests.request
        };
        assert!(!wrong.is_answered_by(&response), "{}", scenario.name);
        asked += 1;
    }
    assert_eq!(asked, GUESTS.len());
}

#[test]
fn scenarios_have_names_of_their_own() {
    let mut names = SCENARIOS.each_ref().map(|it| it.name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), SCENARIOS.len());
}

/// A server that takes 50 ms on a connection that brings a request each 10 ms: they wait longer and longer. A closed loop
/// would call each of them 50 ms.
#[test]
fn time_at_a_fixed_rate_counts_from_when_a_request_was_due() {
    let server = serve("http_sleep").start();
    let request = Request {
        method: "GET",
        target: "/?ms=50",
        body_len: 0,
        answer: Answer::Something,
    };
    let run = |per_second| {
        let time = Duration::from_secs(1);
        fixed_rate::run(server.addr(), &request, (per_second, 1), time).expect("it answers")
    };
    let hurried = run(100);
    assert!(hurried.p50 > Duration::from_millis(100), "{hurried:?}");
    assert_eq!(hurried.good + hurried.errors, 100, "{hurried:?}");
    assert!(hurried.errors > 0, "all were sent in time: {hurried:?}");
    assert_eq!(run(2).errors, 0);
}

#[test]
fn output_of_wrk_is_read() {
    let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 2 connections\n\
        {\"requests\":1000,\"duration_us\":2000000,\"p50_us\":10,\"p99_us\":200,\"p999_us\":3000,\
        \"status\":5,\"connect\":1,\"read\":2,\"write\":3,\"timeout\":4}\n";
    let cpu = Duration::from_millis(7);
    let answers = Answers {
        good: 995,
        errors: 15,
        took: Duration::from_secs(2),
        p50: Duration::from_micros(10),
        p99: Duration::from_micros(200),
        p999: Duration::from_micros(3000),
        cpu,
    };
    assert_eq!(parse(text, cpu), Some(answers));
    assert_eq!(parse("unable to connect to 127.0.0.1:1\n", cpu), None);
    assert_eq!(parse("{\"requests\":1}\n", cpu), None);
}

#[test]
fn urls_and_memory_of_servers_are_read() {
    let addr = "127.0.0.1:4000".parse().ok();
    assert_eq!(url("Serving HTTP on http://127.0.0.1:4000/"), addr);
    assert_eq!(
        url("wrun: listening on http://127.0.0.1:4000/ with 2 workers"),
        addr
    );
    assert_eq!(url("wrun: compiling"), None);
    let rollup = "55e0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:    2048 kB\nPss:    1024 kB\nPss_Dirty: 5 kB\n";
    let memory = Memory {
        rss_mib: 2.0,
        pss_mib: 1.0,
    };
    assert_eq!(parse_rollup(rollup), memory);
    assert_eq!(parse_rollup(""), Memory::default());
}

#[test]
fn figures_are_those_in_the_middle_and_at_the_ends() {
    assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
    assert_eq!(median(std::iter::empty()), None);
    let thousand: Vec<u32> = (1..=1000).collect();
    assert_eq!(quantile(&thousand, 0.5), Some(501));
    assert_eq!(quantile(&thousand, 0.999), Some(1000));
    assert_eq!(quantile(&[7], 0.99), Some(7));
    assert_eq!(quantile::<u32>(&[], 0.5), None);
    assert_eq!(range([2.0, 1.0, 3.0].into_iter()), Some((1.0, 3.0)));
}

#[test]
fn tables_are_markdown_without_columns_that_are_empty() {
    let mut table = Table::new(&["", "req/s", "× hyper", "p50"]);
    table.row(vec![
        "wrun".into(),
        "12345678".into(),
        String::new(),
        "1".into(),
    ]);
    table.row(vec!["node".into(), "none".into()]);
    let expected = "\
|      |    req/s | p50 |
|------|---------:|----:|
| wrun | 12345678 |   1 |
| node |     none |     |
";
    assert_eq!(table.without_empty_columns().to_string(), expected);
}

fn sample(rate: f64) -> Sample {
    Sample {
        rate,
        p50_ms: 1.0,
        p99_ms: 19.0,
        p999_ms: 30.0,
        cpu_us: Some(50.0),
        load_cpu_us: 5.0,
        rss_mib: 20.0,
        pss_mib: 10.0,
        errors: 0,
    }
}

fn entry(contender: Contender, rates: &[f64]) -> Entry<Sample> {
    let rounds = rates.iter().map(|rate| match rate {
        0.0 => Err("it is missing: `get it`".to_owned()),
        rate => Ok(sample(*rate)),
    });
    Entry {
        contender,
        rounds: rounds.collect(),
    }
}

#[test]
fn ratio_is_that_of_the_rounds_that_both_have() {
    let entries = [
        entry(Hyper, &[100.0, 10.0, 0.0, 200.0]),
        entry(Wrun, &[50.0, 6.0, 1.0, 140.0]),
    ];
    assert_eq!(report::ratio(&entries, &entries[1], Hyper), Some(0.6));
    assert_eq!(report::ratio(&entries, &entries[1], Node), None);
}

#[test]
fn report_says_what_is_missing_and_which_goals_were_reached() {
    let entries = [
        entry(Hyper, &[100.0, 100.0]),
        entry(Wasmtime, &[0.0, 0.0]),
        entry(Wrun, &[0.0, 60.0]),
    ];
    let goals = [
        Goal::Times(Hyper, 0.7),
        Goal::Times(Hyper, 0.5),
        Goal::Times(Wasmtime, 7.0),
        Goal::P99Ms(20.0),
    ];
    let report = report::requests(&entries, &goals);
    assert_eq!(
        report.lines,
        [
            "wasmtime serve: it is missing: `get it`",
            "wrun, 1 of 2 rounds: it is missing: `get it`",
            "goal, at least 0.7 × native hyper: 0.600, not reached",
            "goal, at least 0.5 × native hyper: 0.600, reached",
            "goal, at least 7 × wasmtime serve: not measured",
            "goal, p99 below 20 ms: 19.0, reached",
        ]
    );
    let table = report.table.to_string();
    assert!(table.contains("| wasmtime serve |  none |"), "{table}");
    assert!(!table.contains("× wasmtime"), "{table}");
    let none = report::deploys(&[], &[Goal::NoneFails]);
    assert_eq!(none.lines, ["goal, no request fails: not measured"]);
}

#[test]
fn pinned_workers_have_cores_of_their_own_and_leave_the_others_to_the_load() {
    let two = |server: &[usize], load: Option<&[usize]>| Cores {
        workers: server.len(),
        server: Some(server.to_vec()),
        load: load.map(<[usize]>::to_vec),
    };
    assert_eq!(
        cores(Place::Pinned(1), 2, &[0, 1]),
        Ok(two(&[0], Some(&[1])))
    );
    assert_eq!(cores(Place::Pinned(2), 2, &[0, 1]), Ok(two(&[0, 1], None)));
    assert!(cores(Place::Pinned(2), 2, &[5]).is_err());
    let crowded = cores(Place::Crowded(8), 2, &[0, 1]);
    assert_eq!(crowded.map(|cores| cores.workers), Ok(8));
}
