//! `wrun:lock`: locks that the state process keeps.

use super::bindings::wrun::lock::lock::{Error, Host, HostGuard, HostSpace, Options};
use super::shared::{Kind, Opened, ShareView};
use crate::state::client::Guard;
use crate::state::lock::LockError;
use wasmtime::component::Resource;

/// A space of keys that a guest has opened.
pub struct Space(Opened);

impl HostSpace for ShareView<'_> {
    fn open(&mut self, label: String) -> Result<Resource<Space>, LockError> {
        let opened = self.share.open(Kind::LockSpace, label);
        let space = Space(opened.map_err(LockError::Denied)?);
        Ok(self.table.push(space)?)
    }

    async fn acquire(
        &mut self,
        space: Resource<Space>,
        keys: Vec<String>,
        options: Options,
    ) -> Result<Resource<Guard>, LockError> {
        let count = keys.len();
        self.share.quota.may_lock(count).map_err(LockError::Limit)?;
        let Space(Opened { label, client }) = self.table.get(&space)?;
        let owner = self.share.owner(client);
        let Options {
            wait_ms,
            ttl_ms,
            renew,
        } = options;
        let guard = client
            .acquire(owner, label, keys, wait_ms, ttl_ms, renew)
            .await?;
        let guard = self.table.push(guard)?;
        self.share.quota.locked(guard.rep(), count);
        Ok(guard)
    }

    fn drop(&mut self, space: Resource<Space>) -> wasmtime::Result<()> {
        self.table.delete(space)?;
        Ok(())
    }
}

impl HostGuard for ShareView<'_> {
    fn token(&mut self, guard: Resource<Guard>) -> wasmtime::Result<u64> {
        Ok(self.table.get(&guard)?.token())
    }

    fn is_held(&mut self, guard: Resource<Guard>) -> wasmtime::Result<bool> {
        Ok(self.table.get(&guard)?.is_held())
    }

    async fn extend(&mut self, guard: Resource<Guard>, ttl_ms: u32) -> Result<(), LockError> {
        self.table.get(&guard)?.extend(ttl_ms).await
    }

    async fn release(&mut self, guard: Resource<Guard>) -> Result<(), LockError> {
        self.share.quota.unlocked(guard.rep());
        self.table.get(&guard)?.release().await
    }

    fn drop(&mut self, guard: Resource<Guard>) -> wasmtime::Result<()> {
        self.share.quota.unlocked(guard.rep());
        self.table.delete(guard)?;
        Ok(())
    }
}

impl Host for ShareView<'_> {
    fn convert_error(&mut self, error: LockError) -> wasmtime::Result<Error> {
        Ok(match error {
            LockError::Denied(why) => Error::Denied(why),
            LockError::Invalid(why) => Error::Invalid(why),
            LockError::Timeout => Error::Timeout,
            LockError::Lost => Error::Lost,
            LockError::WouldDeadlock => Error::WouldDeadlock,
            LockError::Limit(which) => Error::Limit(which),
            LockError::Unavailable(why) => Error::Unavailable(why),
            LockError::Other(what) => Error::Other(what),
        })
    }
}
