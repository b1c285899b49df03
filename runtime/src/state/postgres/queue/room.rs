//! How many more messages the queue takes, as far as this server knows: it is counted now and then, and what others send
//! meanwhile is not known.

use super::Table;
use super::look::number;
use crate::state::db::DbError;
use crate::state::queue::{Message, QueueError};
use tokio_postgres::types::Type;

const COUNT: &str =
    "SELECT count(*) FROM (SELECT FROM wrun.messages WHERE queue = $1 LIMIT $2) AS counted";

const KNOWN: &str = "SELECT count(*) FROM wrun.dedup \
    WHERE queue = $1 AND dedup_id = ANY($2) AND at >= clock_timestamp() - $3 * interval '1 second'";

impl Table {
    /// Takes room for messages; `Full` if there is not enough.
    pub(super) async fn admit(&self, messages: &[Message]) -> Result<(), QueueError> {
        let count = messages.len() as u64;
        if self.room.borrow_mut().take(count).is_some() {
            return Ok(());
        }
        self.count().await?;
        if self.room.borrow_mut().take(count).is_some() {
            return Ok(());
        }
        // Those that were sent before take no room.
        let known = self.known(messages).await?;
        let taken = self.room.borrow_mut().take(count.saturating_sub(known));
        taken.ok_or(QueueError::Full)
    }

    /// Counts; returns how many more messages there may be.
    pub(super) async fn count(&self) -> Result<u64, DbError> {
        let most = self.max_depth.get();
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let counted = self
            .ask(async |client| {
                let values = [(&self.label as _, Type::TEXT), (&limit as _, Type::INT8)];
                number(&client.query_typed(COUNT, &values).await?)
            })
            .await?;
        let left = most.saturating_sub(counted);
        self.room.borrow_mut().count(left);
        Ok(left)
    }

    async fn known(&self, messages: &[Message]) -> Result<u64, DbError> {
        let ids = messages.iter().filter_map(|it| it.dedup_id.as_deref());
        let ids: Vec<&str> = ids.collect();
        if ids.is_empty() {
            return Ok(0);
        }
        let window = super::send::window();
        self.ask(async |client| {
            let values = [
                (&self.label as _, Type::TEXT),
                (&ids as _, Type::TEXT_ARRAY),
                (&window as _, Type::FLOAT8),
            ];
            number(&client.query_typed(KNOWN, &values).await?)
        })
        .await
    }
}
