//! Parameters of statements: Rust values as values of SQL.

use super::Value;

/// Parameters of a statement, in the order of `$1`, `$2`, …: a tuple, an array, a slice or a vector of what converts into
/// a [`Value`]; `()` for none.
pub trait Params {
    /// Returns one value per parameter.
    fn into_values(self) -> Vec<Value>;
}

impl Params for () {
    fn into_values(self) -> Vec<Value> {
        Vec::new()
    }
}

impl<V: Into<Value>, const N: usize> Params for [V; N] {
    fn into_values(self) -> Vec<Value> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<V: Into<Value>> Params for Vec<V> {
    fn into_values(self) -> Vec<Value> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<V: Into<Value> + Clone> Params for &[V] {
    fn into_values(self) -> Vec<Value> {
        self.iter().cloned().map(Into::into).collect()
    }
}

macro_rules! params_of_tuple {
    ($($name:ident)+) => {
        impl<$($name: Into<Value>),+> Params for ($($name,)+) {
            fn into_values(self) -> Vec<Value> {
                #[expect(non_snake_case, reason = "each value is named after its type")]
                let ($($name,)+) = self;
                vec![$($name.into()),+]
            }
        }
    };
}

params_of_tuple!(A);
params_of_tuple!(A B);
params_of_tuple!(A B C);
params_of_tuple!(A B C D);
params_of_tuple!(A B C D E);
params_of_tuple!(A B C D E F);
params_of_tuple!(A B C D E F G);
params_of_tuple!(A B C D E F G H);
params_of_tuple!(A B C D E F G H I);
params_of_tuple!(A B C D E F G H I J);
params_of_tuple!(A B C D E F G H I J K);
params_of_tuple!(A B C D E F G H I J K L);

macro_rules! value_from {
    ($($from:ty => $to:expr),+ $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                $to(value.into())
            }
        })+
    };
}

value_from! {
    bool => Value::Boolean,
    i8 => Value::Integer,
    i16 => Value::Integer,
    i32 => Value::Integer,
    i64 => Value::Integer,
    u8 => Value::Integer,
    u16 => Value::Integer,
    u32 => Value::Integer,
    f32 => Value::Real,
    f64 => Value::Real,
    &str => Value::Text,
    &String => Value::Text,
    String => Value::Text,
    &[u8] => Value::Blob,
    Vec<u8> => Value::Blob,
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_of_many_types() {
        let values = (1_u8, "two", None::<bool>, Some(4.5), vec![5_u8]).into_values();
        let expected = [
            Value::Integer(1),
            Value::Text("two".to_owned()),
            Value::Null,
            Value::Real(4.5),
            Value::Blob(vec![5]),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn parameters_come_in_many_forms() {
        let expected = vec![Value::Integer(1), Value::Integer(2)];
        assert_eq!([1, 2].into_values(), expected);
        assert_eq!(vec![1, 2].into_values(), expected);
        assert_eq!([1, 2][..].into_values(), expected);
        assert_eq!(expected.clone().into_values(), expected);
        assert_eq!(().into_values(), []);
    }
}
