//! Fencing tokens of locks that servers share, in a table of the database whose transactions they fence.
//!
//! The rows of a transaction's fences are locked until its end. A row that is locked already is that of an earlier holder's
//! transaction: it ends only now, so that what was read under the lock may be old.

use super::connection::Connection;
use super::error::is_locked;
use super::kinds::bytes;
use crate::state::db::{DbError, Fence};
use crate::state::remote::{Fault, Then};

/// Begins a transaction, and enters its fences: `LostFence` if there is a higher token.
pub(super) async fn begin_within(
    on: &Connection,
    begin: &str,
    fences: &[Fence],
) -> Result<(), Fault> {
    let names: Vec<String> = fences.iter().map(|it| bytes(it.key.as_bytes())).collect();
    let select = format!(
        "SELECT name, token FROM _wrun_fences FORCE INDEX (PRIMARY) WHERE name IN ({}) ORDER BY name FOR UPDATE",
        names.join(", ")
    );
    let mut is_first_try = true;
    let seen = loop {
        on.execute(begin).await?;
        let seen = lock(on, &select).await?;
        if seen.len() == fences.len() {
            break seen;
        }
        if !is_first_try {
            // Somebody has tidied up in between.
            return Err(lost());
        }
        is_first_try = false;
        on.execute("ROLLBACK").await?;
        let rows: Vec<String> = names.iter().map(|name| format!("({name}, 0)")).collect();
        let rows = rows.join(", ");
        on.execute(&format!(
            "INSERT IGNORE INTO _wrun_fences (name, token) VALUES {rows}"
        ))
        .await?;
    };
    for fence in fences {
        let known = seen.iter().find(|(name, _)| name == fence.key.as_bytes());
        if known.is_none_or(|(_, token)| *token > fence.token) {
            return Err(lost());
        }
    }
    let enter = fences.iter().zip(&names).map(|(fence, name)| {
        let token = fence.token;
        format!("UPDATE _wrun_fences SET token = {token}, at = now(6) WHERE name = {name}")
    });
    let enter: Vec<String> = enter.collect();
    on.execute(&enter.join("; ")).await
}

/// Locks the rows, and returns them.
async fn lock(on: &Connection, select: &str) -> Result<Vec<(Vec<u8>, u64)>, Fault> {
    let busy = match on.rows(&format!("{select} NOWAIT")).await {
        Ok(rows) => return Ok(rows),
        Err(error) if is_locked(&error) => on.rows::<(Vec<u8>, u64)>(select).await,
        Err(error) => Err(error),
    };
    // Whether or not it has got them after a wait: somebody else had them.
    let Err(error) = busy else {
        return Err(lost());
    };
    let fault = Fault::from(error);
    match &fault.told {
        DbError::Engine {
            retryable: true, ..
        } => Err(lost()),
        _ => Err(fault),
    }
}

fn lost() -> Fault {
    Fault {
        told: DbError::LostFence,
        then: Then::TransactionIsOver,
    }
}
