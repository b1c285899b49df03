//! What things are called in a server.

use crate::state::lock::leased::ledger::Identity;

/// The names of one space. All have its label in braces, so that a cluster keeps them in one slot.
pub(super) struct Names {
    space: String,
    pub(super) identity: Identity,
}

impl Names {
    pub(super) fn new(space: &str, identity: Identity) -> Self {
        let space = space.to_owned();
        Self { space, identity }
    }

    pub(super) fn space(&self) -> &str {
        &self.space
    }

    /// Returns what the names of locks begin with.
    pub(super) fn prefix(&self) -> String {
        format!("wrun:{{{}}}:lock:", self.space)
    }

    pub(super) fn locks(&self, keys: &[String]) -> Vec<String> {
        let prefix = self.prefix();
        keys.iter().map(|key| format!("{prefix}{key}")).collect()
    }

    pub(super) fn fence(&self) -> String {
        format!("wrun:{{{}}}:fence", self.space)
    }

    /// Returns who is next to get a key, of those who wait in other servers of wrun's.
    pub(super) fn next(&self, keys: &[String]) -> String {
        let first = keys.first().map_or("", String::as_str);
        format!("wrun:{{{}}}:next:{first}", self.space)
    }

    /// Returns the locks that this server of wrun's holds.
    pub(super) fn own(&self) -> String {
        format!("wrun:{{{}}}:server:{}", self.space, self.identity.server)
    }

    /// Returns where released locks are told. Channels are shared by all databases of a server.
    pub(super) fn channel(&self, database: i64) -> String {
        format!("wrun:{{{}}}:released:{database}", self.space)
    }
}
