//! `wasi:keyvalue@0.2.0-draft2`, as Spin has it: counts with a sign, lists by text, and compare-and-swap.

use crate::host::drafts::wasi::keyvalue0_2_0_draft2::{atomics, batch, store};
use crate::host::shared::ShareView;
use crate::state::keyvalue::{Bucket, KeyValueError, Seen};
use wasmtime::component::Resource;

impl store::Host for ShareView<'_> {
    fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, KeyValueError> {
        super::open(self, identifier)
    }

    fn convert_error(&mut self, error: KeyValueError) -> wasmtime::Result<store::Error> {
        Ok(error.into())
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
        cursor: Option<String>,
    ) -> Result<store::KeyResponse, KeyValueError> {
        let from = cursor.map(|cursor| cursor.parse()).transpose();
        let from = from.map_err(|_| {
            KeyValueError::Other("the cursor is not one that a page came with".to_owned())
        })?;
        let page = self.table.get(&bucket)?.list_keys(from).await?;
        Ok(store::KeyResponse {
            keys: page.keys,
            cursor: page.next.map(|next| next.to_string()),
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
        delta: i64,
    ) -> Result<i64, KeyValueError> {
        let bucket = self.table.get(&bucket)?;
        bucket.increment(key, delta, i64::MIN).await
    }

    async fn swap(
        &mut self,
        cas: Resource<Seen>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let seen = self.table.delete(cas)?;
        Ok(match seen.swap(value).await {
            Ok(None) => Ok(()),
            Ok(Some(latest)) => Err(atomics::CasError::CasFailed(self.table.push(latest)?)),
            Err(error) => Err(atomics::CasError::StoreError(error.into())),
        })
    }
}

impl atomics::HostCas for ShareView<'_> {
    async fn new(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Resource<Seen>, KeyValueError> {
        let seen = self.table.get(&bucket)?.see(key).await?;
        Ok(self.table.push(seen)?)
    }

    async fn current(&mut self, cas: Resource<Seen>) -> Result<Option<Vec<u8>>, KeyValueError> {
        self.table.get_mut(&cas)?.current().await
    }

    fn drop(&mut self, cas: Resource<Seen>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for ShareView<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>, KeyValueError> {
        let values = self.table.get(&bucket)?.get_many(keys.clone()).await?;
        Ok(keys.into_iter().zip(values).collect())
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

impl From<KeyValueError> for store::Error {
    fn from(error: KeyValueError) -> Self {
        match error {
            KeyValueError::NoSuchStore => Self::NoSuchStore,
            error => Self::Other(error.to_string()),
        }
    }
}
