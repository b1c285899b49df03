//! Values of MariaDB's and MySQL's types, both ways.

use super::kinds::{BINARY, Special};
use crate::state::db::{DbError, VALUE_MAX, Value};
use crate::state::text;
use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::{Column, Value as Raw};

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// Digits after the point that a decimal may have.
const SCALE_MAX: usize = 30;

/// Returns a parameter, and what stands for it in the statement.
pub(super) fn parameter(value: &Value) -> Result<(Raw, String), DbError> {
    check(value)?;
    let bytes = |text: &str| Raw::Bytes(text.as_bytes().to_vec());
    let raw = match value {
        Value::Null => Raw::NULL,
        Value::Boolean(truth) => Raw::Int(i64::from(*truth)),
        Value::Integer(number) => Raw::Int(*number),
        Value::Real(number) => Raw::Double(*number),
        Value::Blob(blob) => Raw::Bytes(blob.clone()),
        Value::Text(text)
        | Value::Date(text)
        | Value::Time(text)
        | Value::Json(text)
        | Value::Other(_, text) => bytes(text),
        // As a text it would be compared as a number that is not exact.
        Value::Decimal(text) => {
            let place = scale(text).map_or("?".to_owned(), |scale| {
                format!("CAST(? AS DECIMAL(65,{scale}))")
            });
            return Ok((bytes(text), place));
        }
        Value::Uuid(high, low) => bytes(&text::uuid(*high, *low)),
        Value::TimestampUs(micros) => timestamp(*micros)?,
    };
    Ok((raw, "?".to_owned()))
}

/// Refuses a value that a guest gave and that the server cannot hold.
fn check(value: &Value) -> Result<(), DbError> {
    let len = match value {
        Value::Blob(bytes) => bytes.len(),
        Value::Text(text)
        | Value::Decimal(text)
        | Value::Date(text)
        | Value::Time(text)
        | Value::Json(text)
        | Value::Other(_, text) => {
            if text.as_bytes().contains(&0) {
                return Err(DbError::Invalid("a text parameter contains NUL".to_owned()));
            }
            text.len()
        }
        Value::Real(number) if !number.is_finite() => {
            return Err(DbError::Invalid("a number is infinite, or none".to_owned()));
        }
        _ => 0,
    };
    match len > VALUE_MAX {
        true => Err(DbError::TooLarge(format!(
            "a parameter is larger than {VALUE_MAX} bytes"
        ))),
        false => Ok(()),
    }
}

/// Returns how many digits a decimal has after its point, if it is one.
fn scale(text: &str) -> Option<usize> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_decimal = !whole.is_empty() && are_digits(whole) && are_digits(fraction);
    (is_decimal && fraction.len() <= SCALE_MAX).then_some(fraction.len())
}

fn timestamp(micros: i64) -> Result<Raw, DbError> {
    let (year, month, day) = text::date(micros.div_euclid(DAY_US));
    let rest = micros.rem_euclid(DAY_US);
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let year = u16::try_from(year).ok().filter(|year| *year <= 9999);
    let year = year.ok_or_else(|| {
        DbError::Invalid("a timestamp is not within the years 0 to 9999".to_owned())
    })?;
    // They fit: they are parts of a day.
    let small = |number: i64| u8::try_from(number).unwrap_or(0);
    Ok(Raw::Date(
        year,
        small(month),
        small(day),
        small(seconds / 3600),
        small(seconds / 60 % 60),
        small(seconds % 60),
        u32::try_from(micros).unwrap_or(0),
    ))
}

/// Returns a field of a row as a value.
pub(super) fn field(raw: Raw, column: &Column, special: Option<&Special>) -> Value {
    use ColumnType as T;
    let ty = column.column_type();
    match raw {
        Raw::NULL => Value::Null,
        Raw::Int(truth @ (0 | 1)) if is_boolean(column) => Value::Boolean(truth == 1),
        Raw::Int(number) => Value::Integer(number),
        Raw::UInt(number) => whole(number),
        Raw::Float(number) => Value::Real(number.into()),
        Raw::Double(number) => Value::Real(number),
        Raw::Date(year, month, day, hour, minute, second, micros) => {
            let time = (hour, minute, second, micros);
            date(ty, (year, month, day), time)
        }
        Raw::Time(is_negative, days, hours, minutes, seconds, micros) => {
            let hours = i64::from(days) * 24 + i64::from(hours);
            let all = hours * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
            let text = text::time_of_day(all * 1_000_000 + i64::from(micros));
            match is_negative || days > 0 {
                true if is_negative => Value::Other("time".to_owned(), format!("-{text}")),
                true => Value::Other("time".to_owned(), text),
                false => Value::Time(text),
            }
        }
        Raw::Bytes(bytes) => match ty {
            T::MYSQL_TYPE_BIT => bits(&bytes),
            T::MYSQL_TYPE_DECIMAL | T::MYSQL_TYPE_NEWDECIMAL => {
                Value::Decimal(String::from_utf8_lossy(&bytes).into_owned())
            }
            T::MYSQL_TYPE_JSON => Value::Json(String::from_utf8_lossy(&bytes).into_owned()),
            T::MYSQL_TYPE_GEOMETRY | T::MYSQL_TYPE_VECTOR => Value::Blob(bytes),
            _ => text_or_blob(bytes, column, special),
        },
    }
}

fn text_or_blob(bytes: Vec<u8>, column: &Column, special: Option<&Special>) -> Value {
    if column.character_set() == BINARY && special.is_none() {
        return Value::Blob(bytes);
    }
    // A server that says text and sends none is not believed.
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Value::Blob(error.into_bytes()),
    };
    match special {
        Some(Special::Uuid) => match u128::from_str_radix(&text.replace('-', ""), 16) {
            Ok(bits) => Value::Uuid((bits >> 64) as u64, bits as u64),
            Err(_) => Value::Text(text),
        },
        Some(Special::Json) => Value::Json(text),
        Some(Special::Other(name)) => Value::Other(name.clone(), text),
        None => Value::Text(text),
    }
}

/// BOOLEAN is TINYINT(1), of which it is shown no more.
fn is_boolean(column: &Column) -> bool {
    column.column_type() == ColumnType::MYSQL_TYPE_TINY && column.column_length() == 1
}

/// Numbers that have no room in `integer` are exact all the same.
fn whole(number: u64) -> Value {
    match i64::try_from(number) {
        Ok(number) => Value::Integer(number),
        Err(_) => Value::Decimal(number.to_string()),
    }
}

fn bits(bytes: &[u8]) -> Value {
    let number = bytes
        .iter()
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    whole(number)
}

fn date(ty: ColumnType, (year, month, day): (u16, u8, u8), time: (u8, u8, u8, u32)) -> Value {
    let shown = format!("{year:04}-{month:02}-{day:02}");
    let is_date = matches!(
        ty,
        ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE
    );
    let (hour, minute, second, micros) = time;
    // Modes that others may have allow dates that are none.
    match (month == 0 || day == 0, is_date) {
        (true, true) => Value::Other("date".to_owned(), shown),
        (true, false) => Value::Other(
            "datetime".to_owned(),
            format!("{shown} {hour:02}:{minute:02}:{second:02}"),
        ),
        (false, true) => Value::Date(shown),
        (false, false) => {
            let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
            let days = days(i64::from(year), i64::from(month), i64::from(day));
            Value::TimestampUs(days * DAY_US + seconds * 1_000_000 + i64::from(micros))
        }
    }
}

/// Returns the number of days since 1970-01-01.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Counted in eras of 400 years that begin on a 1 March, as in `text::date`.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + 365 * year + year / 4 - year / 100 + day - 719_468
}

/// Returns the name of a column's type.
pub(super) fn type_name(column: &Column, special: Option<&Special>) -> String {
    use ColumnType as T;
    let is_binary = column.character_set() == BINARY;
    let name = match (column.column_type(), special) {
        (_, Some(Special::Uuid)) => "uuid",
        (_, Some(Special::Json)) => "json",
        (_, Some(Special::Other(name))) => name,
        (T::MYSQL_TYPE_TINY, _) if is_boolean(column) => "boolean",
        (T::MYSQL_TYPE_TINY, _) => "tinyint",
        (T::MYSQL_TYPE_SHORT, _) => "smallint",
        (T::MYSQL_TYPE_INT24, _) => "mediumint",
        (T::MYSQL_TYPE_LONG, _) => "int",
        (T::MYSQL_TYPE_LONGLONG, _) => "bigint",
        (T::MYSQL_TYPE_DECIMAL | T::MYSQL_TYPE_NEWDECIMAL, _) => "decimal",
        (T::MYSQL_TYPE_FLOAT, _) => "float",
        (T::MYSQL_TYPE_DOUBLE, _) => "double",
        (T::MYSQL_TYPE_BIT, _) => "bit",
        (T::MYSQL_TYPE_YEAR, _) => "year",
        (T::MYSQL_TYPE_DATE | T::MYSQL_TYPE_NEWDATE, _) => "date",
        (T::MYSQL_TYPE_TIME | T::MYSQL_TYPE_TIME2, _) => "time",
        (T::MYSQL_TYPE_TIMESTAMP | T::MYSQL_TYPE_TIMESTAMP2, _) => "timestamp",
        (T::MYSQL_TYPE_DATETIME | T::MYSQL_TYPE_DATETIME2, _) => "datetime",
        (T::MYSQL_TYPE_JSON, _) => "json",
        (T::MYSQL_TYPE_GEOMETRY, _) => "geometry",
        (T::MYSQL_TYPE_VECTOR, _) => "vector",
        (T::MYSQL_TYPE_ENUM, _) => "enum",
        (T::MYSQL_TYPE_SET, _) => "set",
        (_, None) if column.flags().contains(ColumnFlags::ENUM_FLAG) => "enum",
        (_, None) if column.flags().contains(ColumnFlags::SET_FLAG) => "set",
        (T::MYSQL_TYPE_STRING, _) if is_binary => "binary",
        (T::MYSQL_TYPE_STRING, _) => "char",
        (T::MYSQL_TYPE_VARCHAR | T::MYSQL_TYPE_VAR_STRING, _) if is_binary => "varbinary",
        (T::MYSQL_TYPE_VARCHAR | T::MYSQL_TYPE_VAR_STRING, _) => "varchar",
        (
            T::MYSQL_TYPE_TINY_BLOB
            | T::MYSQL_TYPE_MEDIUM_BLOB
            | T::MYSQL_TYPE_LONG_BLOB
            | T::MYSQL_TYPE_BLOB,
            _,
        ) => match is_binary {
            true => "blob",
            false => "text",
        },
        _ => "",
    };
    let is_number = column.column_type().is_numeric_type();
    match is_number && name != "year" && column.flags().contains(ColumnFlags::UNSIGNED_FLAG) {
        true => format!("{name} unsigned"),
        false => name.to_owned(),
    }
}

/// Returns about how large a field is.
pub(super) fn size(raw: &Raw) -> usize {
    match raw {
        Raw::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_dates_and_back() {
        for micros in [
            0,
            -1,
            1_700_000_000_123_456,
            -62_135_596_800_000_000,
            253_402_300_799_999_999,
        ] {
            let raw = timestamp(micros).unwrap();
            let column = Column::new(ColumnType::MYSQL_TYPE_DATETIME);
            assert_eq!(field(raw, &column, None), Value::TimestampUs(micros));
        }
        assert!(timestamp(i64::MAX).is_err() && timestamp(i64::MIN).is_err());
    }

    #[test]
    fn numbers_that_are_too_large_are_decimals() {
        let column = Column::new(ColumnType::MYSQL_TYPE_LONGLONG);
        let read = |number| field(Raw::UInt(number), &column, None);
        assert_eq!(read(7), Value::Integer(7));
        assert_eq!(
            read(u64::MAX),
            Value::Decimal("18446744073709551615".to_owned())
        );
        assert_eq!(bits(&[1, 0]), Value::Integer(256));
    }

    #[test]
    fn decimals_are_compared_as_decimals() {
        let place = |text: &str| parameter(&Value::Decimal(text.to_owned())).unwrap().1;
        assert_eq!(place("-12.50"), "CAST(? AS DECIMAL(65,2))");
        assert_eq!(place("7"), "CAST(? AS DECIMAL(65,0))");
        assert_eq!(place("1e5"), "?");
    }

    #[test]
    fn times_that_are_no_time_of_day_are_of_another_type() {
        let column = Column::new(ColumnType::MYSQL_TYPE_TIME);
        let read = |is_negative, days| {
            field(
                Raw::Time(is_negative, days, 1, 2, 3, 500_000),
                &column,
                None,
            )
        };
        assert_eq!(read(false, 0), Value::Time("01:02:03.5".to_owned()));
        assert_eq!(
            read(false, 1),
            Value::Other("time".to_owned(), "25:02:03.5".to_owned())
        );
        assert_eq!(
            read(true, 0),
            Value::Other("time".to_owned(), "-01:02:03.5".to_owned())
        );
    }
}
