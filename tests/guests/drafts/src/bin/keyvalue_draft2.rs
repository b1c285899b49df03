//! Runs scripts on `wasi:keyvalue@0.2.0-draft2`, the draft of Spin.

use serde_json::{Number, Value as Json};
use wasi::keyvalue::atomics::{Cas, CasError};
use wasi::keyvalue::store::{Bucket, Error};
use wasi::keyvalue::{atomics, batch, store};
use wrun_test_drafts::{Failure, Page, Store, answer};
use wrun_test_guests::handler;

wit_bindgen::generate!({
    path: "../../../runtime/wit/deps/keyvalue-draft2",
    world: "imports",
});

handler!(answer::<Draft2>);

struct Draft2(Bucket);

impl Store for Draft2 {
    type Cas = Cas;

    fn open(label: &str) -> Result<Self, Failure> {
        Ok(Self(store::open(label)?))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.0.get(key)?)
    }

    fn set(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        Ok(self.0.set(key, value)?)
    }

    fn delete(&self, key: &str) -> Result<(), Failure> {
        Ok(self.0.delete(key)?)
    }

    fn exists(&self, key: &str) -> Result<bool, Failure> {
        Ok(self.0.exists(key)?)
    }

    fn list(&self, cursor: Option<String>) -> Result<Page, Failure> {
        let page = self.0.list_keys(cursor.as_deref())?;
        Ok((page.keys, page.cursor))
    }

    fn increment(&self, key: &str, delta: Number) -> Result<Json, Failure> {
        let delta = delta.as_i64().expect("it has 64 bits");
        Ok(atomics::increment(&self.0, key, delta)?.into())
    }

    fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let pairs = batch::get_many(&self.0, keys)?;
        let value = |((key, value), wanted): ((String, _), &String)| {
            assert_eq!(key, *wanted);
            value
        };
        Ok(pairs.into_iter().zip(keys).map(value).collect())
    }

    fn set_many(&self, pairs: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        Ok(batch::set_many(&self.0, pairs)?)
    }

    fn delete_many(&self, keys: &[String]) -> Result<(), Failure> {
        Ok(batch::delete_many(&self.0, keys)?)
    }

    fn see(&self, key: &str) -> Result<Cas, Failure> {
        Ok(Cas::new(&self.0, key)?)
    }

    fn current(cas: &Cas) -> Result<Option<Vec<u8>>, Failure> {
        Ok(cas.current()?)
    }

    fn swap(cas: Cas, value: &[u8]) -> Result<Option<Cas>, Failure> {
        match atomics::swap(cas, value) {
            Ok(()) => Ok(None),
            Err(CasError::CasFailed(latest)) => Ok(Some(latest)),
            Err(CasError::StoreError(error)) => Err(error.into()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NoSuchStore => Self("no-such-store", String::new()),
            Error::AccessDenied => Self("access-denied", String::new()),
            Error::Other(why) => Self("other", why),
        }
    }
}
