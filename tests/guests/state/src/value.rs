//! Values of SQL as JSON. What JSON has is as it is; the rest is `{TYPE: …}`.
//!
//! Tests need not send what is large: `{"text_of": N}` is a text of so many bytes, `{"zeros": N}` such a blob.

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value as Json, json};
use wrun_sdk::bindings::wrun::db::db::{Column, Done, Rows, Step, Value};

/// What JSON has no type for.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Tagged {
    Blob(Vec<u8>),
    Decimal(String),
    Date(String),
    Time(String),
    TimestampUs(i64),
    Uuid(u64, u64),
    Json(String),
    Other(String, String),
    TextOf(usize),
    Zeros(usize),
    /// A number that JSON cannot write, as text.
    Real(String),
}

/// Returns a parameter.
///
/// # Panics
///
/// If it is not written as this module says.
pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Boolean(*value),
        Json::String(text) => Value::Text(text.clone()),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, real) => Value::Real(real.expect("a number is one of the two")),
        },
        tagged => match Tagged::deserialize(tagged).expect("a value with its type") {
            Tagged::Blob(bytes) => Value::Blob(bytes),
            Tagged::Decimal(text) => Value::Decimal(text),
            Tagged::Date(text) => Value::Date(text),
            Tagged::Time(text) => Value::Time(text),
            Tagged::TimestampUs(us) => Value::TimestampUs(us),
            Tagged::Uuid(upper, lower) => Value::Uuid((upper, lower)),
            Tagged::Json(text) => Value::Json(text),
            Tagged::Other(name, text) => Value::Other((name, text)),
            Tagged::TextOf(length) => Value::Text("x".repeat(length)),
            Tagged::Zeros(length) => Value::Blob(vec![0; length]),
            Tagged::Real(text) => Value::Real(text.parse().expect("a number")),
        },
    }
}

/// Returns a value of a row.
pub fn to_json(value: &Value) -> Json {
    match value.clone() {
        Value::Null => Json::Null,
        Value::Boolean(value) => json!(value),
        Value::Integer(value) => json!(value),
        Value::Real(value) => match Number::from_f64(value) {
            Some(number) => Json::Number(number),
            None => json!(Tagged::Real(value.to_string())),
        },
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!(Tagged::Blob(bytes)),
        Value::Decimal(text) => json!(Tagged::Decimal(text)),
        Value::Date(text) => json!(Tagged::Date(text)),
        Value::Time(text) => json!(Tagged::Time(text)),
        Value::TimestampUs(us) => json!(Tagged::TimestampUs(us)),
        Value::Uuid((upper, lower)) => json!(Tagged::Uuid(upper, lower)),
        Value::Json(text) => json!(Tagged::Json(text)),
        Value::Other((name, text)) => json!(Tagged::Other(name, text)),
    }
}

/// Returns a list of rows.
pub fn rows(rows: &[Vec<Value>]) -> Json {
    let row = |row: &Vec<Value>| row.iter().map(to_json).collect::<Json>();
    rows.iter().map(row).collect()
}

/// Returns columns as pairs of a name and a type.
pub fn columns(columns: &[Column]) -> Json {
    let column = |column: &Column| json!([column.name, column.type_name]);
    columns.iter().map(column).collect()
}

/// Returns a result with its columns.
pub fn table(table: &Rows) -> Json {
    json!({ "columns": columns(&table.columns), "rows": rows(&table.rows) })
}

/// Returns what a statement did.
pub fn done(done: Done) -> Json {
    json!({ "affected": done.affected, "last_id": done.last_id })
}

/// Returns results of a batch.
pub fn steps(steps: &[Step]) -> Json {
    let step = |step: &Step| match step {
        Step::Rows(rows) => table(rows),
        Step::Done(what) => done(*what),
    };
    steps.iter().map(step).collect()
}
