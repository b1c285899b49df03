//! Values with a unit, as flags and manifest keys spell them: `128MiB`, `30s`, `auto`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `64KiB`, `128MiB`, `1GiB`, or plain bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(u64);

impl Size {
    /// Returns the number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size: bytesize::ByteSize = text
            .parse()
            .map_err(|_| "expected a size such as 64KiB or 128MiB".to_owned())?;
        Ok(Self(size.as_u64()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A length of time: `250ms`, `30s`, `5min`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span(Duration);

impl Span {
    /// Returns the length.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| "expected a time such as 250ms or 30s".to_owned())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// How many workers to run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Workers {
    /// One per core that this process may use, by its affinity and its cgroup's quota.
    #[default]
    Auto,
    /// This many.
    Count(NonZeroUsize),
}

impl Workers {
    /// Returns the number of workers on this machine, now.
    pub fn count(self) -> usize {
        match self {
            Self::Auto => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            Self::Count(count) => count.get(),
        }
    }
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text
                .parse()
                .map(Self::Count)
                .map_err(|_| "expected `auto` or a number from 1".to_owned()),
        }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

/// Reads and writes a type as the text that its flag takes; the manifest may also give plain numbers.
macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a text or a number")
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    )*};
}

serde_as_text!(Size, Span, Workers);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_binary_units() {
        assert_eq!("128MiB".parse::<Size>().unwrap().bytes(), 128 << 20);
        assert_eq!("4096".parse::<Size>().unwrap().bytes(), 4096);
        assert!("lots".parse::<Size>().is_err());
    }

    #[test]
    fn zero_workers_are_refused() {
        assert!("0".parse::<Workers>().is_err());
        assert_eq!("auto".parse::<Workers>(), Ok(Workers::Auto));
    }

    #[test]
    fn values_survive_the_way_to_the_compile_child() {
        for text in ["30s", "250ms", "5m"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(
                serde_json::from_str::<Span>(&serde_json::to_string(&span).unwrap()).unwrap(),
                span
            );
        }
    }
}
