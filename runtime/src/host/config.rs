//! `wasi:config`: variables that manifest and flags give to guests.

use super::drafts::wasi::config::store::{Error, Host};
use std::collections::BTreeMap;
use std::sync::Arc;
use wasmtime::component::HasData;

/// The variables of one server. Clones are the same.
#[derive(Clone)]
pub(crate) struct Variables(Arc<BTreeMap<String, String>>);

impl Variables {
    pub(crate) fn new(variables: BTreeMap<String, String>) -> Self {
        Self(Arc::new(variables))
    }
}

impl HasData for Variables {
    type Data<'a> = &'a mut Variables;
}

impl Host for Variables {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(Ok(self.0.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        let all = self.0.iter();
        Ok(Ok(all
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()))
    }
}
