//! The interfaces `wrun:lock`, `wrun:db` and `wrun:queue` as Rust: generated from `guest-sdk/wit`, which says what they mean.
//!
//! What is done without waiting is `trappable` alone; the rest may wait for the state process.

wasmtime::component::bindgen!({
    path: "../guest-sdk/wit",
    world: "wrun:runtime/worker",
    imports: {
        "wrun:lock/lock.[static]space.open": trappable,
        "wrun:lock/lock.[method]guard.token": trappable,
        "wrun:lock/lock.[method]guard.is-held": trappable,
        "wrun:lock/lock.[drop]space": trappable,
        "wrun:lock/lock.[drop]guard": trappable,
        "wrun:db/db.[static]database.open": trappable,
        "wrun:db/db.[method]database.dialect": trappable,
        "wrun:db/db.[method]cursor.columns": trappable,
        "wrun:db/db.[drop]database": trappable,
        "wrun:db/db.[drop]transaction": trappable,
        "wrun:db/db.[drop]cursor": trappable,
        "wrun:queue/queue.[static]queue.open": trappable,
        "wrun:queue/queue.[drop]queue": trappable,
        default: async | trappable,
    },
    exports: { default: async },
    with: {
        "wrun:lock/lock.space": crate::host::lock::Space,
        "wrun:lock/lock.guard": crate::state::client::Guard,
        "wrun:db/db.database": crate::host::db::Database,
        "wrun:db/db.transaction": crate::state::client::Transaction,
        "wrun:db/db.cursor": crate::state::client::Cursor,
        "wrun:queue/queue.queue": crate::host::queue::Queue,
    },
    trappable_error_type: {
        "wrun:lock/lock.error" => crate::state::lock::LockError,
        "wrun:db/db.error" => crate::state::db::DbError,
        "wrun:queue/queue.error" => crate::state::queue::QueueError,
    },
});
