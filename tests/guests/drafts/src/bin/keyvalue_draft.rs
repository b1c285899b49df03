//! Runs scripts on `wasi:keyvalue@0.2.0-draft`, the draft of wasmtime.

use serde_json::{Number, Value as Json};
use std::convert::Infallible;
use wasi::keyvalue::store::{Bucket, Error};
use wasi::keyvalue::{atomics, batch, store};
use wrun_test_drafts::{Failure, Page, Store, answer};
use wrun_test_guests::handler;

wit_bindgen::generate!({
    path: "../../../runtime/wit/deps/keyvalue-draft",
    world: "imports",
});

handler!(answer::<Draft>);

struct Draft(Bucket);

impl Store for Draft {
    type Cas = Infallible;

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
        let cursor = cursor.map(|cursor| cursor.parse().expect("cursors are numbers"));
        let page = self.0.list_keys(cursor)?;
        Ok((page.keys, page.cursor.map(|cursor| cursor.to_string())))
    }

    fn increment(&self, key: &str, delta: Number) -> Result<Json, Failure> {
        let delta = delta.as_u64().expect("it has no sign");
        Ok(atomics::increment(&self.0, key, delta)?.into())
    }

    fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let pairs = batch::get_many(&self.0, keys)?;
        let value = |(pair, wanted): (Option<(String, Vec<u8>)>, &String)| {
            let (key, value) = pair?;
            assert_eq!(key, *wanted);
            Some(value)
        };
        Ok(pairs.into_iter().zip(keys).map(value).collect())
    }

    fn set_many(&self, pairs: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        Ok(batch::set_many(&self.0, pairs)?)
    }

    fn delete_many(&self, keys: &[String]) -> Result<(), Failure> {
        Ok(batch::delete_many(&self.0, keys)?)
    }

    fn see(&self, _key: &str) -> Result<Infallible, Failure> {
        Err(Failure(
            "unsupported",
            "this draft has no compare-and-swap".to_owned(),
        ))
    }

    fn current(cas: &Infallible) -> Result<Option<Vec<u8>>, Failure> {
        match *cas {}
    }

    fn swap(cas: Infallible, _value: &[u8]) -> Result<Option<Infallible>, Failure> {
        match cas {}
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
