//! How values of a database are printed: as psql prints them in a table, and as PostgreSQL's `to_json` does in JSON.

use crate::state::db::{Column, Row, Value};
use crate::state::text::{date, time_of_day, uuid};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

const DAY_US: i64 = 86_400_000_000;

/// Returns a value as a cell of a table: NULL is empty.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Boolean(true) => "t".to_owned(),
        Value::Boolean(false) => "f".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => real(*number),
        Value::Blob(bytes) => hex(bytes),
        Value::TimestampUs(micros) => timestamp(*micros, ' ', "+00"),
        Value::Uuid(upper, lower) => uuid(*upper, *lower),
        Value::Text(text)
        | Value::Decimal(text)
        | Value::Date(text)
        | Value::Time(text)
        | Value::Json(text)
        | Value::Other(_, text) => text.clone(),
    }
}

/// Returns bytes in PostgreSQL's notation.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.fold("\\x".to_owned(), |text, digits| text + &digits)
}

/// Returns a time in milliseconds since 1970 in UTC.
pub(super) fn time(millis: u64) -> String {
    let micros = i64::try_from(millis)
        .unwrap_or(i64::MAX)
        .saturating_mul(1000);
    timestamp(micros, ' ', "+00")
}

/// A row as an object of JSON: its columns in their order.
pub(super) struct Object<'a> {
    pub(super) columns: &'a [Column],
    pub(super) row: &'a Row,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.row.len()))?;
        for (column, value) in self.columns.iter().zip(self.row) {
            object.serialize_entry(&column.name, &json(value))?;
        }
        object.end()
    }
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Boolean(is) => (*is).into(),
        Value::Integer(number) => (*number).into(),
        Value::Real(number) if number.is_finite() => (*number).into(),
        Value::TimestampUs(micros) => timestamp(*micros, 'T', "+00:00").into(),
        // What claims to be JSON and is not is a text like any other.
        Value::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into()),
        other => cell(other).into(),
    }
}

fn real(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned();
    }
    // From here on PostgreSQL has an exponent, too.
    let is_plain = number == 0.0 || (1e-4..1e15).contains(&number.abs());
    match is_plain {
        true => number.to_string(),
        false => format!("{number:e}"),
    }
}

fn timestamp(micros: i64, between: char, zone: &str) -> String {
    let (days, time) = (micros.div_euclid(DAY_US), micros.rem_euclid(DAY_US));
    let (year, month, day) = date(days);
    let time = time_of_day(time);
    format!("{year:04}-{month:02}-{day:02}{between}{time}{zone}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_look_as_in_psql() {
        for (value, text) in [
            (Value::Null, ""),
            (Value::Boolean(true), "t"),
            (Value::Boolean(false), "f"),
            (Value::Integer(i64::MIN), "-9223372036854775808"),
            (Value::Real(1.0), "1"),
            (Value::Real(0.1), "0.1"),
            (Value::Real(1e300), "1e300"),
            (Value::Real(f64::NAN), "NaN"),
            (Value::Real(f64::NEG_INFINITY), "-Infinity"),
            (Value::Blob(vec![0, 255]), "\\x00ff"),
            (Value::Decimal("-12.50".into()), "-12.50"),
            (
                Value::Uuid(0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff),
                "00112233-4455-6677-8899-aabbccddeeff",
            ),
        ] {
            assert_eq!(cell(&value), text);
        }
    }

    #[test]
    fn timestamps_are_those_of_the_calendar() {
        for (micros, text) in [
            (0, "1970-01-01 00:00:00+00"),
            (-1, "1969-12-31 23:59:59.999999+00"),
            (951_782_400_000_000, "2000-02-29 00:00:00+00"),
            (1_709_251_199_500_000, "2024-02-29 23:59:59.5+00"),
            (-62_135_596_800_000_000, "0001-01-01 00:00:00+00"),
            (253_402_300_799_000_000, "9999-12-31 23:59:59+00"),
        ] {
            assert_eq!(cell(&Value::TimestampUs(micros)), text);
        }
        // Not a year that anybody reads, but no end of the command either.
        cell(&Value::TimestampUs(i64::MIN));
        cell(&Value::TimestampUs(i64::MAX));
    }

    #[test]
    fn row_is_an_object_in_the_order_of_its_columns() {
        let column = |name: &str| Column {
            name: name.to_owned(),
            type_name: String::new(),
        };
        let columns = ["z", "a", "j", "n", "f", "t"].map(column);
        let row = vec![
            Value::Integer(1),
            Value::Text("x".into()),
            Value::Json("{\"k\":[1]}".into()),
            Value::Null,
            Value::Boolean(false),
            Value::TimestampUs(0),
        ];
        let object = Object {
            columns: &columns,
            row: &row,
        };
        assert_eq!(
            serde_json::to_string(&object).unwrap(),
            "{\"z\":1,\"a\":\"x\",\"j\":{\"k\":[1]},\"n\":null,\"f\":false,\"t\":\"1970-01-01T00:00:00+00:00\"}"
        );
    }
}
