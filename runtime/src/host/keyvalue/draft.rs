//! `wasi:keyvalue@0.2.0-draft`, as wasmtime and wasmCloud have it: counts without a sign, lists by number.

use crate::host::drafts::wasi::keyvalue0_2_0_draft::{atomics, batch, store};
use crate::host::shared::ShareView;
use crate::state::keyvalue::{Bucket, KeyValueError};
use wasmtime::component::Resource;

impl store::Host for ShareView<'_> {
    fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, KeyValueError> {
        super::open(self, identifier)
    }

    fn convert_error(&mut self, error: KeyValueError) -> wasmtime::Result<store::Error> {
        Ok(match error {
            KeyValueError::NoSuchStore => store::Error::NoSuchStore,
            error => store::Error::Other(error.to_string()),
        })
    }
}

impl store::HostBucket for ShareView<'_> {
    async fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.table.get(&bucket)?.get(key).await
    }

    async fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), KeyValueError> {
        self.table.get(&bucket)?.set(key, value).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), KeyValueError> {
        self.table.get(&bucket)?.delete(key).await
    }

    async fn exists(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<bool, KeyValueError> {
        self.table.get(&bucket)?.exists(key).await
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse, KeyValueError> {
        // A number that no page ended with is beyond the last.
        let from = cursor.map(|cursor| i64::try_from(cursor).unwrap_or(i64::MAX));
        let page = self.table.get(&bucket)?.list_keys(from).await?;
        Ok(store::KeyResponse {
            keys: page.keys,
            cursor: page.next.and_then(|next| u64::try_from(next).ok()),
        })
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for ShareView<'_> {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: u64,
    ) -> Result<u64, KeyValueError> {
        let delta = i64::try_from(delta).map_err(|_| KeyValueError::NotCountable)?;
        let sum = self.table.get(&bucket)?.increment(key, delta, 0).await?;
        Ok(sum.unsigned_abs())
    }
}

impl batch::Host for ShareView<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, KeyValueError> {
        let values = self.table.get(&bucket)?.get_many(keys.clone()).await?;
        let pairs = keys.into_iter().zip(values);
        Ok(pairs
            .map(|(key, value)| value.map(|value| (key, value)))
            .collect())
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<(), KeyValueError> {
        self.table.get(&bucket)?.set_many(pairs).await
    }

    async fn delete_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<(), KeyValueError> {
        self.table.get(&bucket)?.delete_many(keys).await
    }
}
