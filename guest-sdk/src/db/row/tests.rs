//! Rows as Rust values.

use super::*;
use serde::Deserialize;
use std::collections::BTreeMap;

fn columns(names: &[&str]) -> Vec<Column> {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        type_name: String::new(),
    };
    names.iter().map(column).collect()
}

fn one<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    decode(&columns(&["it"]), vec![value])
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[derive(Debug, Deserialize, PartialEq)]
struct Order {
    id: u32,
    customer: Option<String>,
    status: Status,
    paid: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Sold,
}

#[test]
fn a_struct_takes_columns_by_name() {
    let columns = columns(&["paid", "customer", "more", "status", "id"]);
    let values = vec![
        Value::Integer(1),
        Value::Null,
        Value::Real(0.5),
        text("sold"),
        Value::Integer(7),
    ];
    let order: Order = decode(&columns, values).expect("the columns are there");
    let expected = Order {
        id: 7,
        customer: None,
        status: Status::Sold,
        paid: true,
    };
    assert_eq!(order, expected);
}

#[test]
fn a_tuple_takes_columns_by_place() {
    let two = columns(&["n", "name"]);
    let values = || vec![Value::Integer(-3), text("x")];
    let row: (i64, String) = decode(&two, values()).expect("two columns");
    assert_eq!(row, (-3, "x".to_owned()));
    let short = decode::<(i64,)>(&two, values()).expect_err("one column too many");
    assert_eq!(
        short.to_string(),
        "unexpected row: it has 2 columns, 1 are wanted"
    );
    assert!(decode::<(i64, String, i64)>(&two, values()).is_err());
}

#[test]
fn a_single_value_is_the_only_column() {
    assert_eq!(one::<i64>(Value::Integer(5)), Ok(5));
    assert_eq!(one::<f64>(Value::Integer(5)), Ok(5.0));
    assert_eq!(one::<Option<String>>(Value::Null), Ok(None));
    assert_eq!(one::<Option<String>>(text("x")), Ok(Some("x".to_owned())));
    assert_eq!(one::<bool>(Value::Boolean(true)), Ok(true));
    assert_eq!(one::<Status>(text("sold")), Ok(Status::Sold));
    assert_eq!(one::<()>(Value::Null), Ok(()));
    let two = decode::<i64>(&columns(&["a", "b"]), vec![Value::Integer(1), text("x")]);
    assert!(two.is_err());
}

#[test]
fn an_option_of_a_struct_is_there() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Name {
        it: String,
    }
    let name = one::<Option<Name>>(text("x"));
    let expected = Name { it: "x".to_owned() };
    assert_eq!(name, Ok(Some(expected)));
}

#[test]
fn a_blob_is_bytes() {
    let blob = || Value::Blob(vec![0, 255]);
    let bytes = one::<serde_bytes::ByteBuf>(blob()).expect("bytes");
    assert_eq!(bytes.as_slice(), [0, 255]);
    let (list,): (Vec<u8>,) = one(blob()).expect("a sequence");
    assert_eq!(list, [0, 255]);
}

#[test]
fn exact_values_stay_text() {
    let decimal = || Value::Decimal("-12.50".to_owned());
    assert_eq!(one::<String>(decimal()), Ok("-12.50".to_owned()));
    assert!(one::<f64>(decimal()).is_err());
    assert_eq!(one::<i64>(Value::TimestampUs(9)), Ok(9));
    let uuid = Value::Uuid((0x0123_4567_89ab_cdef, 0x0123_4567_89ab_cdef));
    assert_eq!(
        one::<String>(uuid),
        Ok("01234567-89ab-cdef-0123-456789abcdef".to_owned())
    );
}

#[test]
fn a_json_column_is_what_it_holds_or_text() {
    let json = || Value::Json(r#"{"a":[1,2]}"#.to_owned());
    let (map,): (BTreeMap<String, Vec<u8>>,) = one(json()).expect("a document");
    assert_eq!(map["a"], [1, 2]);
    assert_eq!(one::<String>(json()), Ok(r#"{"a":[1,2]}"#.to_owned()));
    assert!(one::<(BTreeMap<String, String>,)>(json()).is_err());
    assert!(one::<(Vec<u8>,)>(Value::Json("no".to_owned())).is_err());
}

#[test]
fn a_row_of_any_shape_becomes_json() {
    let row = decode::<serde_json::Value>(&columns(&["a", "b"]), vec![Value::Null, text("x")]);
    assert_eq!(row, Ok(serde_json::json!({"a": null, "b": "x"})));
}

#[test]
fn an_error_names_its_column() {
    let columns = columns(&["id", "customer", "status", "paid"]);
    let values = vec![Value::Integer(-1), Value::Null, Value::Null, Value::Null];
    let error = decode::<Order>(&columns, values).expect_err("a negative id");
    assert!(error.to_string().contains("column id:"), "{error}");
    let missing = decode::<Order>(&columns[..1], vec![Value::Integer(1)]).expect_err("no status");
    assert!(missing.to_string().contains("status"), "{missing}");
}

#[test]
fn a_newtype_is_what_is_in_it() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Id(i64);
    assert_eq!(one::<Id>(Value::Integer(3)), Ok(Id(3)));
    let pair: Result<(Id, Id), _> = decode(
        &columns(&["a", "b"]),
        vec![Value::Integer(1), Value::Integer(2)],
    );
    assert_eq!(pair, Ok((Id(1), Id(2))));
}
