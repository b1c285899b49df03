//! What guests share, as one instance sees it: what it may open, and the line to the state process.
//!
//! What a lock, a database and a queue do is for the files of these names.

use super::batch::Batch;
use super::quota::Quota;
use crate::config;
use crate::state::client::Client;
use crate::state::db::DbError;
use crate::state::keyvalue::KeyValueError;
use crate::state::lock::LockError;
use crate::state::queue::QueueError;
use std::sync::Arc;
use wasmtime::component::{HasData, ResourceTable, ResourceTableError};

/// What the guests of one worker share.
pub(crate) struct Shared {
    grants: config::Shared,
    client: Client,
}

impl Shared {
    pub(crate) fn new(grants: config::Shared, client: Client) -> Self {
        Self { grants, client }
    }
}

/// What one instance has of it.
pub(crate) struct Share {
    /// `None` if the manifest grants nothing.
    shared: Option<Arc<Shared>>,
    /// Tells its locks from those of others; `None` until it takes one.
    owner: Option<u64>,
    /// What it is handling, if it is a consumer.
    batch: Option<Arc<Batch>>,
    pub(super) quota: Quota,
}

/// What the manifest grants by a label.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    LockSpace,
    Database,
    Queue,
    KeyValue,
}

/// Something that was granted, and the line on which to use it.
pub(super) struct Opened {
    pub(super) label: String,
    pub(super) client: Client,
}

impl Share {
    pub(crate) fn new(
        shared: Option<Arc<Shared>>,
        batch: Option<Arc<Batch>>,
        quota: Quota,
    ) -> Self {
        Self {
            shared,
            owner: None,
            batch,
            quota,
        }
    }

    /// Opens what is granted as `label`, or says why not.
    pub(super) fn open(&self, kind: Kind, label: String) -> Result<Opened, String> {
        match &self.shared {
            Some(shared) if kind.is_granted(&shared.grants, &label) => Ok(Opened {
                label,
                client: shared.client.clone(),
            }),
            _ => Err(kind.denied(&label)),
        }
    }

    /// Returns the language of a database that is open.
    pub(super) fn dialect(&self, label: &str) -> &str {
        let shared = self.shared.as_ref();
        let database = shared.and_then(|shared| shared.grants.databases.get(label));
        let bound = database.and_then(|database| database.bound.as_ref());
        bound.map_or("sqlite", |bound| &bound.backend)
    }

    /// Returns the number under which the instance owns locks.
    pub(super) fn owner(&mut self, client: &Client) -> u64 {
        *self.owner.get_or_insert_with(|| client.next_owner())
    }

    /// Returns the batch that the instance is handling, and the line to those who handed it out.
    pub(super) fn handling(&self) -> Option<(&Batch, &Client)> {
        Some((self.batch.as_ref()?, &self.shared.as_ref()?.client))
    }
}

impl Kind {
    fn is_granted(self, grants: &config::Shared, label: &str) -> bool {
        match self {
            Self::LockSpace => grants.locks.contains_key(label),
            Self::Database => grants.databases.contains_key(label),
            Self::Queue => grants.queues.contains_key(label),
            Self::KeyValue => grants.keyvalue.contains_key(label),
        }
    }

    /// Says that there is nothing with this label, and what would change that.
    fn denied(self, label: &str) -> String {
        let (what, section) = match self {
            Self::LockSpace => ("lock space", "locks"),
            Self::Database => ("database", "databases"),
            Self::Queue => ("queue", "queues"),
            Self::KeyValue => ("key-value store", "keyvalue"),
        };
        if is_label(label) {
            return format!(
                "no {what} is called `{label}`: grant it with [{section}.{label}] in wrun.toml"
            );
        }
        let shown: String = label.escape_debug().take(LABEL_MAX).collect();
        format!("no {what} can be called `{shown}`")
    }
}

/// The longest label, and the most that is shown of what is none.
const LABEL_MAX: usize = 63;

/// Tells whether the manifest could grant something by this label.
fn is_label(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    label.len() <= LABEL_MAX
        && label.bytes().next().is_some_and(is_plain)
        && label
            .bytes()
            .all(|byte| is_plain(byte) || byte == b'_' || byte == b'-')
}

/// What the functions of these interfaces work on.
pub(crate) struct ShareView<'a> {
    pub(crate) share: &'a mut Share,
    pub(crate) table: &'a mut ResourceTable,
}

/// Tells wasmtime what the interfaces work on.
pub(crate) struct HasShare;

impl HasData for HasShare {
    type Data<'a> = ShareView<'a>;
}

// A guest cannot name a handle that it does not have, so all that can go wrong with the table is that it is full.

impl From<ResourceTableError> for LockError {
    fn from(error: ResourceTableError) -> Self {
        Self::Limit(error.to_string())
    }
}

impl From<ResourceTableError> for DbError {
    fn from(error: ResourceTableError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<ResourceTableError> for KeyValueError {
    fn from(error: ResourceTableError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<ResourceTableError> for QueueError {
    fn from(error: ResourceTableError) -> Self {
        Self::Other(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn denied(label: &str) -> String {
        let share = Share::new(None, None, Quota::new(&Limits::default()));
        match share.open(Kind::LockSpace, label.to_owned()) {
            Ok(_) => panic!("nothing was granted"),
            Err(text) => text,
        }
    }

    #[test]
    fn what_is_not_granted_is_denied_with_the_section_to_add() {
        assert_eq!(
            denied("default"),
            "no lock space is called `default`: grant it with [locks.default] in wrun.toml"
        );
    }

    #[test]
    fn what_is_no_label_is_denied_without_repeating_all_of_it() {
        assert_eq!(denied(""), "no lock space can be called ``");
        assert_eq!(denied("../x"), "no lock space can be called `../x`");
        assert_eq!(denied("a\0b\n"), "no lock space can be called `a\\0b\\n`");
        assert!(denied(&"x".repeat(64 << 10)).len() < 100);
    }

    #[test]
    fn labels_are_short_and_plain() {
        assert!(is_label("a") && is_label("0-_z") && is_label(&"a".repeat(63)));
        for label in ["", "-a", "_a", "A", "ä", "a.b", "a b"] {
            assert!(!is_label(label), "{label}");
        }
        assert!(!is_label(&"a".repeat(64)));
    }
}
