//! Values of PostgreSQL's types, both ways.
//!
//! Parameters go as text, which PostgreSQL reads as the type that the statement has in their place; results come in their
//! binary form. What has a type that `wrun:db` does not know is for `other` to turn into text.

use crate::state::db::{DbError, VALUE_MAX, Value};
use crate::state::text;
use std::error::Error;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type};

/// Microseconds from 1970 to 2000, from when PostgreSQL counts.
const EPOCH_US: i64 = 946_684_800_000_000;

/// Days from 1970 to 2000.
const EPOCH_DAYS: i64 = 10_957;

/// A parameter.
#[derive(Debug)]
pub(super) struct Parameter<'a>(&'a Value);

impl<'a> Parameter<'a> {
    /// Takes a value that a guest gave, if it is one that PostgreSQL can hold.
    pub(super) fn new(value: &'a Value) -> Result<Self, DbError> {
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
            _ => 0,
        };
        match len > VALUE_MAX {
            true => Err(DbError::TooLarge(format!(
                "a parameter is larger than {VALUE_MAX} bytes"
            ))),
            false => Ok(Self(value)),
        }
    }

    /// Returns its binary form, where it has to be that or is simpler.
    fn binary(&self, ty: &Type) -> Option<Vec<u8>> {
        let is = |types: &[Type]| types.contains(ty);
        match self.0 {
            Value::Blob(bytes) => Some(bytes.clone()),
            Value::Text(text) if is(&[Type::BYTEA]) => Some(text.clone().into_bytes()),
            Value::Uuid(high, low) if is(&[Type::BYTEA, Type::UUID]) => {
                Some([high.to_be_bytes(), low.to_be_bytes()].concat())
            }
            Value::TimestampUs(micros) if is(&[Type::TIMESTAMP, Type::TIMESTAMPTZ]) => {
                Some(micros.saturating_sub(EPOCH_US).to_be_bytes().to_vec())
            }
            _ => None,
        }
    }

    fn text(&self, ty: &Type) -> String {
        let is_whole = [Type::INT2, Type::INT4, Type::INT8, Type::OID].contains(ty);
        match self.0 {
            Value::Boolean(truth) if is_whole => u8::from(*truth).to_string(),
            Value::Boolean(truth) => truth.to_string(),
            Value::Integer(number) | Value::TimestampUs(number) => number.to_string(),
            // JavaScript has no other numbers.
            Value::Real(number) if is_whole && number.fract() == 0.0 => number.to_string(),
            Value::Real(number) => format!("{number:?}"),
            Value::Text(text)
            | Value::Decimal(text)
            | Value::Date(text)
            | Value::Time(text)
            | Value::Json(text)
            | Value::Other(_, text) => text.clone(),
            Value::Uuid(high, low) => text::uuid(*high, *low),
            Value::Null | Value::Blob(_) => String::new(),
        }
    }
}

impl ToSql for Parameter<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        if *self.0 == Value::Null {
            return Ok(IsNull::Yes);
        }
        match self.binary(ty) {
            Some(bytes) => out.extend_from_slice(&bytes),
            None => out.extend_from_slice(self.text(ty).as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(ty, out)
    }

    fn encode_format(&self, ty: &Type) -> Format {
        match self.binary(ty) {
            Some(_) => Format::Binary,
            None => Format::Text,
        }
    }
}

/// A field of a row.
pub(super) enum Field {
    Known(Value),
    /// The binary form of a type that `wrun:db` does not know.
    Unknown(Vec<u8>),
}

impl<'a> FromSql<'a> for Field {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(match known(ty, raw)? {
            Some(value) => Self::Known(value),
            None => Self::Unknown(raw.to_vec()),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self::Known(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn known(ty: &Type, raw: &[u8]) -> Result<Option<Value>, Box<dyn Error + Sync + Send>> {
    Ok(Some(match *ty {
        Type::BOOL => Value::Boolean(bool::from_sql(ty, raw)?),
        Type::INT2 => Value::Integer(i16::from_sql(ty, raw)?.into()),
        Type::INT4 => Value::Integer(i32::from_sql(ty, raw)?.into()),
        Type::INT8 => Value::Integer(i64::from_sql(ty, raw)?),
        Type::OID => Value::Integer(u32::from_sql(ty, raw)?.into()),
        Type::FLOAT4 => Value::Real(f32::from_sql(ty, raw)?.into()),
        Type::FLOAT8 => Value::Real(f64::from_sql(ty, raw)?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => {
            Value::Text(str::from_utf8(raw)?.to_owned())
        }
        Type::BYTEA => Value::Blob(raw.to_vec()),
        Type::NUMERIC => numeric(raw)?,
        Type::DATE => date(i32::from_be_bytes(raw.try_into()?)),
        Type::TIME => Value::Time(text::time_of_day(i64::from_be_bytes(raw.try_into()?))),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            timestamp(ty.name(), i64::from_be_bytes(raw.try_into()?))
        }
        Type::UUID => {
            let bits = u128::from_be_bytes(raw.try_into()?);
            Value::Uuid((bits >> 64) as u64, bits as u64)
        }
        Type::JSON => Value::Json(str::from_utf8(raw)?.to_owned()),
        // Before the text is the version of the form.
        Type::JSONB => Value::Json(str::from_utf8(raw.get(1..).unwrap_or_default())?.to_owned()),
        _ if matches!(ty.kind(), Kind::Enum(_)) => Value::Text(str::from_utf8(raw)?.to_owned()),
        _ => return Ok(None),
    }))
}

/// Reads `count, weight, sign, scale` and `count` digits to the base of 10,000.
fn numeric(raw: &[u8]) -> Result<Value, Box<dyn Error + Sync + Send>> {
    use std::fmt::Write as _;
    let mut words = raw
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut word = || words.next().ok_or("a numeric is too short");
    let (count, weight, sign, scale) = (word()?, word()?.cast_signed(), word()?, word()?);
    let digits: Vec<u16> = words.by_ref().take(count.into()).collect();
    let sign = match sign {
        0 => "",
        0x4000 => "-",
        0xd000 => return Ok(Value::Other("numeric".into(), "Infinity".into())),
        0xf000 => return Ok(Value::Other("numeric".into(), "-Infinity".into())),
        _ => return Ok(Value::Other("numeric".into(), "NaN".into())),
    };
    let digit = |at: i32| {
        let digit = usize::try_from(at).ok().and_then(|at| digits.get(at));
        digit.copied().unwrap_or(0)
    };
    let weight = i32::from(weight);
    let mut text = sign.to_owned();
    write!(text, "{}", digit(0) * u16::from(weight >= 0))?;
    for at in 1..=weight {
        write!(text, "{:04}", digit(at))?;
    }
    if scale > 0 {
        let mut fraction = String::new();
        let groups = i32::from(scale.div_ceil(4));
        for at in 1..=groups {
            write!(fraction, "{:04}", digit(weight + at))?;
        }
        fraction.truncate(scale.into());
        write!(text, ".{fraction}")?;
    }
    Ok(Value::Decimal(text))
}

fn date(days: i32) -> Value {
    let civil = match days {
        i32::MAX => Err("infinity"),
        i32::MIN => Err("-infinity"),
        days => Ok(text::date(i64::from(days) + EPOCH_DAYS)),
    };
    match civil {
        Ok((year, month, day)) if (1..=9999).contains(&year) => {
            Value::Date(format!("{year:04}-{month:02}-{day:02}"))
        }
        Ok((year, month, day)) => {
            // There is no year 0: before 1 is 1 BC.
            let (year, era) = if year > 0 {
                (year, "")
            } else {
                (1 - year, " BC")
            };
            Value::Other("date".into(), format!("{year:04}-{month:02}-{day:02}{era}"))
        }
        Err(text) => Value::Other("date".into(), text.into()),
    }
}

fn timestamp(name: &str, micros: i64) -> Value {
    match micros {
        i64::MAX => Value::Other(name.into(), "infinity".into()),
        i64::MIN => Value::Other(name.into(), "-infinity".into()),
        _ => Value::TimestampUs(micros.saturating_add(EPOCH_US)),
    }
}

/// The binary form of a value whose type only PostgreSQL knows.
#[derive(Debug)]
pub(super) struct Raw(pub(super) Vec<u8>);

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(ty, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, expected) in [
            (0, "2000-01-01"),
            (-1, "1999-12-31"),
            (59, "2000-02-29"),
            (-10_957, "1970-01-01"),
            (8825, "2024-02-29"),
        ] {
            assert_eq!(date(days), Value::Date(expected.into()));
        }
        assert_eq!(
            date(i32::MAX),
            Value::Other("date".into(), "infinity".into())
        );
        assert_eq!(
            date(-730_120),
            Value::Other("date".into(), "0001-12-31 BC".into())
        );
    }

    #[test]
    fn numerics_have_all_their_digits() {
        let raw = |words: &[u16]| {
            words
                .iter()
                .flat_map(|word| word.to_be_bytes())
                .collect::<Vec<u8>>()
        };
        for (words, expected) in [
            (&[0, 0, 0, 0][..], "0"),
            (&[0, 0, 0, 2], "0.00"),
            (&[1, 0, 0x4000, 0, 12], "-12"),
            (&[2, 1, 0, 0, 1, 5], "10005"),
            (&[1, 1, 0, 0, 3], "30000"),
            (&[2, 0, 0, 2, 12, 5000], "12.50"),
            (&[1, 0xffff, 0, 4, 7], "0.0007"),
            (&[1, 0xfffe, 0, 8, 7], "0.00000007"),
            (&[1, 0xffff, 0, 3, 1230], "0.123"),
        ] {
            assert_eq!(
                numeric(&raw(words)).unwrap(),
                Value::Decimal(expected.into()),
                "{words:?}"
            );
        }
        assert_eq!(
            numeric(&raw(&[0, 0, 0xc000, 0])).unwrap(),
            Value::Other("numeric".into(), "NaN".into())
        );
        assert!(numeric(&[0, 1]).is_err());
    }

    #[test]
    fn times_have_as_many_digits_as_they_need() {
        for (micros, expected) in [
            (0, "00:00:00"),
            (86_399_500_000, "23:59:59.5"),
            (1, "00:00:00.000001"),
        ] {
            assert_eq!(text::time_of_day(micros), expected);
        }
    }

    #[test]
    fn uuid_has_its_usual_form() {
        assert_eq!(
            text::uuid(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210),
            "01234567-89ab-cdef-fedc-ba9876543210"
        );
    }
}
