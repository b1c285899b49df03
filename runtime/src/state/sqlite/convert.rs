//! Values of SQLite, which has five types, as values of `wrun:db`, which has thirteen, and back.
//!
//! The declared type of a column says what its values mean: the first word of it, so that `DECIMAL TEXT` counts as
//! DECIMAL. A value that does not fit it comes as what SQLite holds, never as an error.
//!
//! SQLite turns what looks like a number into one in a column declared DECIMAL or NUMERIC: `12.50` comes back as `12.5`,
//! and beyond 15 digits it is not exact. A column declared `DECIMAL TEXT` keeps every digit.

use crate::state::db::{DbError, VALUE_MAX, Value};
use rusqlite::types::{ToSqlOutput, ValueRef};

/// What the values of a column mean, by its declared type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// What SQLite holds.
    Plain,
    Boolean,
    Decimal,
    Date,
    Time,
    Timestamp,
    Uuid,
    Json,
}

impl Kind {
    /// Returns the kind of a column with this declared type.
    pub(super) fn of(declared: &str) -> Self {
        const KINDS: [(&str, Kind); 10] = [
            ("boolean", Kind::Boolean),
            ("bool", Kind::Boolean),
            ("decimal", Kind::Decimal),
            ("numeric", Kind::Decimal),
            ("date", Kind::Date),
            ("time", Kind::Time),
            ("timestamp", Kind::Timestamp),
            ("datetime", Kind::Timestamp),
            ("uuid", Kind::Uuid),
            ("json", Kind::Json),
        ];
        let word = declared
            .trim_start()
            .split(|c: char| c == '(' || c.is_ascii_whitespace())
            .next()
            .unwrap_or_default();
        KINDS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map_or(Self::Plain, |(_, kind)| *kind)
    }
}

/// Returns the value of a column of this kind.
pub(super) fn from_sqlite(value: ValueRef<'_>, kind: Kind) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => match kind {
            Kind::Boolean if number == 0 || number == 1 => Value::Boolean(number == 1),
            Kind::Decimal => Value::Decimal(number.to_string()),
            Kind::Timestamp => Value::TimestampUs(number),
            Kind::Json => Value::Json(number.to_string()),
            _ => Value::Integer(number),
        },
        ValueRef::Real(number) => match kind {
            // Rust writes no exponents, and the shortest digits that are this number.
            Kind::Decimal if number.is_finite() => Value::Decimal(number.to_string()),
            Kind::Json if number.is_finite() => Value::Json(number.to_string()),
            _ => Value::Real(number),
        },
        // Nothing stops a statement from making text that is no UTF-8.
        ValueRef::Text(bytes) => match str::from_utf8(bytes) {
            Ok(text) => from_text(text, kind),
            Err(_) => Value::Blob(bytes.to_vec()),
        },
        ValueRef::Blob(bytes) => match (kind, <[u8; 16]>::try_from(bytes)) {
            (Kind::Uuid, Ok(bytes)) => uuid(u128::from_be_bytes(bytes)),
            _ => Value::Blob(bytes.to_vec()),
        },
    }
}

fn from_text(text: &str, kind: Kind) -> Value {
    let owned = || text.to_owned();
    match kind {
        Kind::Decimal if is_decimal(text) => Value::Decimal(owned()),
        Kind::Date if parse_date(text).is_some() => Value::Date(owned()),
        Kind::Time if parse_time(text).is_some() => Value::Time(owned()),
        Kind::Timestamp => match parse_timestamp(text) {
            Some(micros) => Value::TimestampUs(micros),
            None => Value::Other("timestamp".to_owned(), owned()),
        },
        Kind::Uuid => match parse_uuid(text) {
            Some(bits) => uuid(bits),
            None => Value::Text(owned()),
        },
        Kind::Json => Value::Json(owned()),
        _ => Value::Text(owned()),
    }
}

/// Returns a value as SQLite is to hold it.
pub(super) fn to_sqlite(value: &Value) -> Result<ToSqlOutput<'_>, DbError> {
    Ok(ToSqlOutput::Borrowed(match value {
        Value::Null => ValueRef::Null,
        Value::Boolean(truth) => ValueRef::Integer(i64::from(*truth)),
        Value::Integer(number) | Value::TimestampUs(number) => ValueRef::Integer(*number),
        Value::Real(number) => ValueRef::Real(*number),
        Value::Text(content)
        | Value::Decimal(content)
        | Value::Date(content)
        | Value::Time(content)
        | Value::Json(content)
        | Value::Other(_, content) => {
            check_text(content)?;
            ValueRef::Text(content.as_bytes())
        }
        Value::Blob(bytes) if bytes.len() > VALUE_MAX => return Err(too_large()),
        Value::Blob(bytes) => ValueRef::Blob(bytes),
        Value::Uuid(high, low) => {
            let bits = u128::from(*high) << 64 | u128::from(*low);
            return Ok(ToSqlOutput::Owned(rusqlite::types::Value::Blob(
                bits.to_be_bytes().to_vec(),
            )));
        }
    }))
}

fn check_text(text: &str) -> Result<(), DbError> {
    if text.len() > VALUE_MAX {
        return Err(too_large());
    }
    // Half of SQLite's functions would see only what is before it.
    if text.as_bytes().contains(&0) {
        return Err(DbError::Invalid("a text parameter contains NUL".to_owned()));
    }
    Ok(())
}

fn too_large() -> DbError {
    DbError::TooLarge(format!("a parameter is larger than {VALUE_MAX} bytes"))
}

fn uuid(bits: u128) -> Value {
    Value::Uuid((bits >> 64) as u64, bits as u64)
}

/// Reads `8-4-4-4-12` hexadecimal digits.
fn parse_uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut bits = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if [8, 13, 18, 23].contains(&at) {
            if *byte != b'-' {
                return None;
            }
        } else {
            bits = bits << 4 | u128::from((*byte as char).to_digit(16)?);
        }
    }
    Some(bits)
}

/// Tells whether this is an optional sign, digits and perhaps a fraction.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    !whole.is_empty() && !fraction.is_empty() && all_digits(whole) && all_digits(fraction)
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads a number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && all_digits(text))
        .then(|| text.parse().ok())
        .flatten()
}

/// Reads `YYYY-MM-DD` as days since 1970-01-01.
fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let year = number(parts.next()?, 4)?;
    let month = number(parts.next()?, 2)?;
    let day = number(parts.next()?, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    // Counted in years that begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(before + (153 * month + 2) / 5 + day - 1 - 719_468)
}

/// Reads `HH:MM[:SS[.ffffff]]` as microseconds; digits beyond the sixth are passed over.
fn parse_time(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let hours = number(parts.next()?, 2).filter(|hours| *hours < 24)?;
    let minutes = number(parts.next()?, 2).filter(|minutes| *minutes < 60)?;
    let (seconds, fraction) = match parts.next() {
        None => ("00", ""),
        Some(seconds) => match seconds.split_once('.') {
            None => (seconds, ""),
            Some((_, "")) => return None,
            Some(split) => split,
        },
    };
    let seconds = number(seconds, 2).filter(|seconds| *seconds < 60)?;
    if !all_digits(fraction) {
        return None;
    }
    let micros: i64 = format!("{fraction:0<6.6}").parse().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// Reads a date, perhaps a time, and perhaps an offset, as microseconds since 1970 in UTC.
fn parse_timestamp(text: &str) -> Option<i64> {
    let date = parse_date(text.get(..10)?)?;
    let rest = &text[10..];
    let mut micros = date * 86_400_000_000;
    if let Some(rest) = rest.strip_prefix(['T', 't', ' ']) {
        let zone = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
        micros += parse_time(&rest[..zone])? - parse_offset(&rest[zone..])?;
    } else if !rest.is_empty() {
        return None;
    }
    Some(micros)
}

/// Reads `Z`, `+HH:MM` or nothing as microseconds.
fn parse_offset(text: &str) -> Option<i64> {
    match text.as_bytes().first() {
        None => Some(0),
        Some(b'Z' | b'z') => (text.len() == 1).then_some(0),
        Some(sign) => {
            let offset = parse_time(&text[1..])?;
            Some(if *sign == b'-' { -offset } else { offset })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str) -> ValueRef<'_> {
        ValueRef::Text(content.as_bytes())
    }

    #[test]
    fn declared_types_say_what_values_mean() {
        for (declared, kind) in [
            ("BOOLEAN", Kind::Boolean),
            ("bool", Kind::Boolean),
            ("DECIMAL(10, 2)", Kind::Decimal),
            ("numeric", Kind::Decimal),
            ("DECIMAL TEXT", Kind::Decimal),
            ("Date", Kind::Date),
            ("TIME", Kind::Time),
            ("TIMESTAMP", Kind::Timestamp),
            ("timestamp(6) with time zone", Kind::Timestamp),
            ("DATETIME", Kind::Timestamp),
            ("UUID", Kind::Uuid),
            ("JSON", Kind::Json),
            ("", Kind::Plain),
            ("INTEGER", Kind::Plain),
            ("VARCHAR(10)", Kind::Plain),
            ("DATES", Kind::Plain),
        ] {
            assert_eq!(Kind::of(declared), kind, "{declared}");
        }
    }

    #[test]
    fn values_that_fit_their_declared_type_have_it() {
        let half = 0x0123_4567_89ab_cdef;
        let blob: Vec<u8> = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef].repeat(2);
        for (value, kind, expected) in [
            (ValueRef::Null, Kind::Boolean, Value::Null),
            (ValueRef::Integer(1), Kind::Boolean, Value::Boolean(true)),
            (
                ValueRef::Integer(-3),
                Kind::Decimal,
                Value::Decimal("-3".into()),
            ),
            (
                ValueRef::Real(12.5),
                Kind::Decimal,
                Value::Decimal("12.5".into()),
            ),
            (
                ValueRef::Real(1e21),
                Kind::Decimal,
                Value::Decimal("1000000000000000000000".into()),
            ),
            (
                text("-12.50"),
                Kind::Decimal,
                Value::Decimal("-12.50".into()),
            ),
            (
                text("2024-02-29"),
                Kind::Date,
                Value::Date("2024-02-29".into()),
            ),
            (
                text("23:59:59.5"),
                Kind::Time,
                Value::Time("23:59:59.5".into()),
            ),
            (ValueRef::Integer(5), Kind::Timestamp, Value::TimestampUs(5)),
            (
                text("1970-01-02 00:00:01"),
                Kind::Timestamp,
                Value::TimestampUs(86_401_000_000),
            ),
            (ValueRef::Blob(&blob), Kind::Uuid, Value::Uuid(half, half)),
            (
                text("01234567-89AB-cdef-0123-456789abcdef"),
                Kind::Uuid,
                Value::Uuid(half, half),
            ),
            (text("{}"), Kind::Json, Value::Json("{}".into())),
            (ValueRef::Integer(1), Kind::Json, Value::Json("1".into())),
        ] {
            assert_eq!(from_sqlite(value, kind), expected);
        }
    }

    #[test]
    fn values_that_do_not_fit_come_as_sqlite_holds_them() {
        for (value, kind, expected) in [
            (ValueRef::Integer(2), Kind::Boolean, Value::Integer(2)),
            (text("yes"), Kind::Boolean, Value::Text("yes".into())),
            (text("1e5"), Kind::Decimal, Value::Text("1e5".into())),
            (text("."), Kind::Decimal, Value::Text(".".into())),
            (
                text("2023-02-29"),
                Kind::Date,
                Value::Text("2023-02-29".into()),
            ),
            (ValueRef::Integer(7), Kind::Date, Value::Integer(7)),
            (text("24:00:00"), Kind::Time, Value::Text("24:00:00".into())),
            (
                text("soon"),
                Kind::Timestamp,
                Value::Other("timestamp".into(), "soon".into()),
            ),
            (ValueRef::Real(0.5), Kind::Timestamp, Value::Real(0.5)),
            (
                ValueRef::Blob(b"short"),
                Kind::Uuid,
                Value::Blob(b"short".to_vec()),
            ),
            (text("no uuid"), Kind::Uuid, Value::Text("no uuid".into())),
            (
                ValueRef::Text(b"\xff"),
                Kind::Plain,
                Value::Blob(b"\xff".to_vec()),
            ),
        ] {
            assert_eq!(from_sqlite(value, kind), expected);
        }
    }

    #[test]
    fn timestamps_are_read_in_iso_8601() {
        for (text, micros) in [
            ("1970-01-01", Some(0)),
            ("1970-01-01T00:00Z", Some(0)),
            ("1969-12-31 23:59:59.999999", Some(-1)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000_000)),
            ("2024-02-29T12:30:15.25+02:00", Some(1_709_202_615_250_000)),
            (
                "2024-02-29T12:30:15.1234567-00:30",
                Some(1_709_211_615_123_456),
            ),
            ("2024-02-30", None),
            ("2024-13-01", None),
            ("2024-02-29x", None),
            ("2024-02-29T", None),
            ("2024-02-29T12:30:15.", None),
            ("2024-02-29T12:30Zz", None),
            ("ääääääääää", None),
            ("", None),
        ] {
            assert_eq!(parse_timestamp(text), micros, "{text}");
        }
    }

    #[test]
    fn parameters_are_bound_as_they_are_read() {
        let values = [
            (Value::Boolean(true), Kind::Boolean),
            (Value::Decimal("12.50".into()), Kind::Decimal),
            (Value::Date("2024-01-01".into()), Kind::Date),
            (Value::Time("10:00:00".into()), Kind::Time),
            (Value::TimestampUs(-1), Kind::Timestamp),
            (Value::Uuid(1, u64::MAX), Kind::Uuid),
            (Value::Json("[]".into()), Kind::Json),
            (Value::Blob(vec![0]), Kind::Plain),
            (Value::Real(0.1), Kind::Plain),
        ];
        for (value, kind) in values {
            let back = match to_sqlite(&value).unwrap() {
                ToSqlOutput::Borrowed(bound) => from_sqlite(bound, kind),
                ToSqlOutput::Owned(bound) => from_sqlite((&bound).into(), kind),
                other => panic!("{other:?}"),
            };
            assert_eq!(back, value);
        }
    }

    #[test]
    fn parameters_with_nul_or_too_large_are_refused() {
        assert!(matches!(
            to_sqlite(&Value::Text("a\0".into())),
            Err(DbError::Invalid(_))
        ));
        assert!(matches!(
            to_sqlite(&Value::Blob(vec![0; VALUE_MAX + 1])),
            Err(DbError::TooLarge(_))
        ));
        assert!(to_sqlite(&Value::Blob(b"\0".to_vec())).is_ok());
    }
}
