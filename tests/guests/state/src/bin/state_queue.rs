//! Sends the messages that it is told to, and handles each as its body says: `{"do": "retry", "after_ms": 10}`. Every try
//! leaves a row in the table `handled`.

use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::{process, thread, time::Duration};
use wrun_sdk::bindings::exports::wrun::queue::consumer::{Delivery, Guest, Outcome};
use wrun_sdk::bindings::wrun::queue::queue::{self, Message, Queue};
use wrun_sdk::db;
use wrun_sdk::http::{Request, Response};
use wrun_test_state::{answer, handled, query};

/// How to handle a message.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "do")]
    what: String,
    /// The last attempt that this is for; later ones ack.
    until: Option<u32>,
    /// How long to take before that.
    #[serde(default)]
    ms: u64,
    after_ms: Option<u64>,
    /// What to extend by, and instead of which delivery.
    extend_ms: Option<u32>,
    id: Option<String>,
}

#[wrun_sdk::http]
fn main(request: Request) -> Result<Response, db::Error> {
    let db = db::open("default")?;
    Ok(answer::respond(&match request.uri().path() {
        "/send" => answer::of(send(&request)),
        "/handled" => handled::all(&db)?,
        path => panic!("no such path: {path}"),
    }))
}

/// Sends a list of `{"key":, "dedup_id":, "delay_ms":, "body":}` to `?queue=`, together.
fn send(request: &Request) -> Result<Json, queue::Error> {
    let messages: Vec<Json> = serde_json::from_slice(request.body()).expect("a list of messages");
    let messages: Vec<Message> = messages.iter().map(message).collect();
    let queue = query::text(request, "queue");
    let ids = Queue::open(queue.as_deref().unwrap_or("jobs"))?.send(&messages)?;
    Ok(json!(ids))
}

fn message(json: &Json) -> Message {
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    let spaces = json["spaces"].as_u64().unwrap_or(0);
    let mut body = json["body"].to_string().into_bytes();
    body.resize(body.len() + usize::try_from(spaces).expect("it fits"), b' ');
    let headers = json["headers"].as_object().into_iter().flatten();
    let header = |(name, value): (&String, &Json)| {
        (name.clone(), value.as_str().unwrap_or_default().to_owned())
    };
    Message {
        body,
        content_type: text("content_type"),
        headers: headers.map(header).collect(),
        key: text("key"),
        dedup_id: text("dedup_id"),
        delay_ms: json["delay_ms"].as_u64(),
    }
}

struct Consumer;

impl Guest for Consumer {
    fn handle(batch: Vec<Delivery>) -> Vec<Outcome> {
        let size = batch.len();
        batch
            .iter()
            .flat_map(|delivery| handle(delivery, size))
            .collect()
    }
}

wrun_sdk::bindings::export_consumer!(Consumer with_types_in wrun_sdk::bindings);

fn handle(delivery: &Delivery, batch: usize) -> Vec<Outcome> {
    let db = db::open("default").expect("the test grants it");
    let row = handled::begin(&db, delivery, batch).expect("the table takes rows");
    let body: Body = serde_json::from_slice(&delivery.body).expect("a body that says what to do");
    if let Some(ms) = body.extend_ms {
        let extended = queue::extend(body.id.as_ref().unwrap_or(&delivery.id), ms);
        handled::extended(&db, row, &answer::of(extended)).expect("the table takes it");
    }
    thread::sleep(Duration::from_millis(body.ms));
    let over = body.until.is_some_and(|until| delivery.attempt > until);
    let outcomes = match body.what.as_str() {
        _ if over => vec![Outcome::Ack],
        "ack" => vec![Outcome::Ack],
        "retry" => vec![Outcome::Retry(body.after_ms)],
        "dead" => vec![Outcome::Dead("as told".to_owned())],
        "short" => vec![],
        "long" => vec![Outcome::Ack, Outcome::Ack],
        "trap" => panic!("as told"),
        "exit" => process::exit(0),
        "spin" => loop {
            std::hint::black_box(())
        },
        what => panic!("no such thing to do: {what}"),
    };
    handled::end(&db, row).expect("the table takes it");
    outcomes
}
