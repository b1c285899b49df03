//! What the guests of both drafts of `wasi:keyvalue` do: they run the script that they are sent, step by step, and answer
//! the list of results.

use serde::Deserialize;
use serde_json::{Number, Value as Json, json};
use std::thread;
use std::time::Duration;
use wrun_test_guests::request::RequestBody;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, response};

/// A step of a script.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Uses this store from now on; at the beginning it is `default`.
    Open {
        store: String,
    },
    Get {
        key: String,
    },
    Set {
        key: String,
        value: Value,
    },
    Delete {
        key: String,
    },
    Exists {
        key: String,
    },
    List {
        cursor: Option<String>,
    },
    Increment {
        key: String,
        delta: Number,
    },
    GetMany {
        keys: Vec<String>,
    },
    SetMany {
        pairs: Vec<(String, Value)>,
    },
    DeleteMany {
        keys: Vec<String>,
    },
    /// Counts one up by `get` and `set`, as nobody should.
    AddInTwoSteps {
        key: String,
    },
    /// Counts one up by compare-and-swap.
    AddBySwap {
        key: String,
    },
    /// Makes a handle for compare-and-swap.
    See {
        key: String,
    },
    /// Returns what the last handle sees.
    Current,
    /// Swaps with the last handle; if that fails, its successor is the last one.
    Swap {
        value: Value,
    },
}

/// A value as it stands in a script.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Value {
    Text(String),
    Bytes(Vec<u8>),
    Zeros { zeros: usize },
}

impl Value {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
            Self::Zeros { zeros } => vec![0; zeros],
        }
    }
}

/// An error of the interface: its name, and what it says.
pub struct Failure(pub &'static str, pub String);

/// Keys of a page, and the cursor of the next one.
pub type Page = (Vec<String>, Option<String>);

/// One draft of the interface.
pub trait Store: Sized {
    type Cas;

    fn open(label: &str) -> Result<Self, Failure>;
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure>;
    fn set(&self, key: &str, value: &[u8]) -> Result<(), Failure>;
    fn delete(&self, key: &str) -> Result<(), Failure>;
    fn exists(&self, key: &str) -> Result<bool, Failure>;
    fn list(&self, cursor: Option<String>) -> Result<Page, Failure>;
    fn increment(&self, key: &str, delta: Number) -> Result<Json, Failure>;
    fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Failure>;
    fn set_many(&self, pairs: &[(String, Vec<u8>)]) -> Result<(), Failure>;
    fn delete_many(&self, keys: &[String]) -> Result<(), Failure>;
    fn see(&self, key: &str) -> Result<Self::Cas, Failure>;
    fn current(cas: &Self::Cas) -> Result<Option<Vec<u8>>, Failure>;
    /// Returns the successor if the swap failed.
    fn swap(cas: Self::Cas, value: &[u8]) -> Result<Option<Self::Cas>, Failure>;
}

/// Runs a script.
pub fn answer<S: Store>(request: IncomingRequest, out: ResponseOutparam) {
    let body = RequestBody::of(&request);
    let mut text = Vec::new();
    while let Some(piece) = body.next(64 << 10).expect("the body is whole") {
        text.extend(piece);
    }
    let script: Vec<Op> = serde_json::from_slice(&text).expect("the body is a script");
    let mut store = S::open("default");
    let mut cas = None;
    let results: Json = script
        .into_iter()
        .map(|op| match run(&mut store, &mut cas, op) {
            Ok(result) => json!({ "ok": result }),
            Err(Failure(name, why)) => json!({ "error": name, "why": why }),
        })
        .collect();
    response::text(out, &results.to_string());
}

fn run<S: Store>(
    store: &mut Result<S, Failure>,
    cas: &mut Option<S::Cas>,
    op: Op,
) -> Result<Json, Failure> {
    if let Op::Open { store: label } = op {
        *store = Ok(S::open(&label)?);
        return Ok(Json::Null);
    }
    let store = store
        .as_ref()
        .map_err(|Failure(name, why)| Failure(name, why.clone()))?;
    Ok(match op {
        Op::Open { .. } => unreachable!("done before"),
        Op::Get { key } => shown(store.get(&key)?),
        Op::Set { key, value } => json!(store.set(&key, &value.into_bytes())?),
        Op::Delete { key } => json!(store.delete(&key)?),
        Op::Exists { key } => json!(store.exists(&key)?),
        Op::List { cursor } => json!(store.list(cursor)?),
        Op::Increment { key, delta } => store.increment(&key, delta)?,
        Op::GetMany { keys } => store.get_many(&keys)?.into_iter().map(shown).collect(),
        Op::SetMany { pairs } => {
            let pairs: Vec<_> = pairs
                .into_iter()
                .map(|(key, value)| (key, value.into_bytes()))
                .collect();
            json!(store.set_many(&pairs)?)
        }
        Op::DeleteMany { keys } => json!(store.delete_many(&keys)?),
        Op::AddInTwoSteps { key } => {
            let number = number(store.get(&key)?);
            thread::sleep(Duration::from_millis(5));
            json!(store.set(&key, (number + 1).to_string().as_bytes())?)
        }
        Op::AddBySwap { key } => json!(add_by_swap(store, &key)?),
        Op::See { key } => {
            *cas = Some(store.see(&key)?);
            Json::Null
        }
        Op::Current => shown(S::current(cas.as_ref().expect("a handle"))?),
        Op::Swap { value } => {
            *cas = S::swap(cas.take().expect("a handle"), &value.into_bytes())?;
            json!(if cas.is_some() { "failed" } else { "swapped" })
        }
    })
}

/// Returns how often it had to try.
fn add_by_swap<S: Store>(store: &S, key: &str) -> Result<u64, Failure> {
    let mut cas = store.see(key)?;
    for tries in 1.. {
        let number = number(S::current(&cas)?);
        match S::swap(cas, (number + 1).to_string().as_bytes())? {
            None => return Ok(tries),
            Some(latest) => cas = latest,
        }
    }
    unreachable!("it tries for ever")
}

fn number(value: Option<Vec<u8>>) -> u64 {
    value.map_or(0, |value| {
        let text = String::from_utf8(value).expect("a number is text");
        text.parse().expect("a number")
    })
}

/// Returns a value as JSON: as text if it is text, and a long one as its length.
fn shown(value: Option<Vec<u8>>) -> Json {
    match value {
        Some(value) if value.len() > 1000 => json!({ "bytes": value.len() }),
        Some(value) => match String::from_utf8(value) {
            Ok(text) => text.into(),
            Err(error) => error.into_bytes().into(),
        },
        None => Json::Null,
    }
}
