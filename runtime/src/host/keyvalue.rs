//! `wasi:keyvalue`: stores that the state process keeps. Each draft has a file of its own; they reach the same stores.

mod draft;
mod draft2;

use super::shared::{Kind, Opened, ShareView};
use crate::state::keyvalue::{Bucket, KeyValueError};
use std::sync::Once;
use wasmtime::component::Resource;

/// The label that stands for the store without a name, which is the one that `wasmtime serve` has.
const DEFAULT: &str = "default";

/// Opens what is granted. The error has no text, so the first time the log says what would change it.
fn open(view: &mut ShareView<'_>, identifier: String) -> Result<Resource<Bucket>, KeyValueError> {
    static TOLD: Once = Once::new();
    let label = match identifier.as_str() {
        "" => DEFAULT.to_owned(),
        _ => identifier,
    };
    match view.share.open(Kind::KeyValue, label) {
        Ok(Opened { label, client }) => Ok(view.table.push(Bucket::new(client, &label))?),
        Err(why) => {
            TOLD.call_once(|| tracing::warn!("a guest opens a store that is not there: {why}"));
            Err(KeyValueError::NoSuchStore)
        }
    }
}
