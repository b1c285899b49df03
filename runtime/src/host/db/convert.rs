//! Statements, values, results and errors of `wrun:db`, from and to what they are behind the line to the state process.

use crate::host::bindings::wrun::db::db as wit;
use crate::state::db;
use std::time::Duration;

pub(super) fn statement(sql: String, params: Vec<wit::Value>) -> db::Statement {
    let params = params.into_iter().map(db::Value::from).collect();
    db::Statement { sql, params }
}

pub(super) fn options(options: wit::TxOptions) -> db::TxOptions {
    let default = db::TxOptions::default();
    let timeout = options
        .timeout_ms
        .map(|ms| Duration::from_millis(ms.into()));
    db::TxOptions {
        read_only: options.read_only,
        isolation: match options.isolation {
            None => default.isolation,
            Some(wit::Isolation::ReadCommitted) => db::Isolation::ReadCommitted,
            Some(wit::Isolation::RepeatableRead) => db::Isolation::RepeatableRead,
            Some(wit::Isolation::Serializable) => db::Isolation::Serializable,
        },
        timeout: timeout.map_or(default.timeout, |timeout| timeout.min(db::TX_TIME_MAX)),
    }
}

pub(super) fn row(row: db::Row) -> Vec<wit::Value> {
    row.into_iter().map(wit::Value::from).collect()
}

impl From<wit::Value> for db::Value {
    fn from(value: wit::Value) -> Self {
        match value {
            wit::Value::Null => Self::Null,
            wit::Value::Boolean(value) => Self::Boolean(value),
            wit::Value::Integer(value) => Self::Integer(value),
            wit::Value::Real(value) => Self::Real(value),
            wit::Value::Text(value) => Self::Text(value),
            wit::Value::Blob(value) => Self::Blob(value),
            wit::Value::Decimal(value) => Self::Decimal(value),
            wit::Value::Date(value) => Self::Date(value),
            wit::Value::Time(value) => Self::Time(value),
            wit::Value::TimestampUs(value) => Self::TimestampUs(value),
            wit::Value::Uuid((upper, lower)) => Self::Uuid(upper, lower),
            wit::Value::Json(value) => Self::Json(value),
            wit::Value::Other((name, value)) => Self::Other(name, value),
        }
    }
}

impl From<db::Value> for wit::Value {
    fn from(value: db::Value) -> Self {
        match value {
            db::Value::Null => Self::Null,
            db::Value::Boolean(value) => Self::Boolean(value),
            db::Value::Integer(value) => Self::Integer(value),
            db::Value::Real(value) => Self::Real(value),
            db::Value::Text(value) => Self::Text(value),
            db::Value::Blob(value) => Self::Blob(value),
            db::Value::Decimal(value) => Self::Decimal(value),
            db::Value::Date(value) => Self::Date(value),
            db::Value::Time(value) => Self::Time(value),
            db::Value::TimestampUs(value) => Self::TimestampUs(value),
            db::Value::Uuid(upper, lower) => Self::Uuid((upper, lower)),
            db::Value::Json(value) => Self::Json(value),
            db::Value::Other(name, value) => Self::Other((name, value)),
        }
    }
}

impl From<db::Column> for wit::Column {
    fn from(column: db::Column) -> Self {
        Self {
            name: column.name,
            type_name: column.type_name,
        }
    }
}

impl From<db::Rows> for wit::Rows {
    fn from(rows: db::Rows) -> Self {
        Self {
            columns: rows.columns.into_iter().map(wit::Column::from).collect(),
            rows: rows.rows.into_iter().map(row).collect(),
        }
    }
}

impl From<db::Done> for wit::Done {
    fn from(done: db::Done) -> Self {
        Self {
            affected: done.affected,
            last_id: done.last_id,
        }
    }
}

impl From<db::Step> for wit::Step {
    fn from(step: db::Step) -> Self {
        match step {
            db::Step::Rows(rows) => Self::Rows(rows.into()),
            db::Step::Done(done) => Self::Done(done.into()),
        }
    }
}

impl From<db::DbError> for wit::Error {
    fn from(error: db::DbError) -> Self {
        match error {
            db::DbError::Denied(why) => Self::Denied(why),
            db::DbError::Invalid(why) => Self::Invalid(why),
            db::DbError::Engine {
                code,
                message,
                constraint,
                retryable,
            } => Self::Db(wit::DbError {
                code,
                message,
                constraint,
                retryable,
            }),
            db::DbError::Timeout(which) => Self::Timeout(which),
            db::DbError::Closed => Self::Closed,
            db::DbError::LostFence => Self::LostFence,
            db::DbError::OutcomeUnknown => Self::OutcomeUnknown,
            db::DbError::TooLarge(what) => Self::TooLarge(what),
            db::DbError::Unavailable(why) => Self::Unavailable(why),
            db::DbError::Other(what) => Self::Other(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_survives_the_way_there_and_back() {
        let text = || "x".to_owned();
        let values = [
            db::Value::Null,
            db::Value::Boolean(true),
            db::Value::Integer(i64::MIN),
            db::Value::Real(-0.5),
            db::Value::Text(text()),
            db::Value::Blob(vec![0, 255]),
            db::Value::Decimal("-12.50".to_owned()),
            db::Value::Date("2024-02-29".to_owned()),
            db::Value::Time("23:59:59.999999".to_owned()),
            db::Value::TimestampUs(-1),
            db::Value::Uuid(1, u64::MAX),
            db::Value::Json("{}".to_owned()),
            db::Value::Other(text(), text()),
        ];
        for value in values {
            let there = wit::Value::from(value.clone());
            assert_eq!(db::Value::from(there), value);
        }
    }

    #[test]
    fn transaction_gets_no_more_time_than_there_is() {
        let timeout = |timeout_ms| {
            let given = wit::TxOptions {
                read_only: false,
                isolation: None,
                timeout_ms,
            };
            options(given).timeout
        };
        assert_eq!(timeout(None), db::TX_TIME_MAX);
        assert_eq!(timeout(Some(5)), Duration::from_millis(5));
        assert_eq!(timeout(Some(u32::MAX)), db::TX_TIME_MAX);
    }
}
