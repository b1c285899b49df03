//! What a guest of wrun needs: shared state and entry points.
//!
//! A guest is a component. For each request, and for each batch of messages, it runs in a fresh instance whose memory ends
//! with it. What is to outlast that lives behind a [`lock`], in a database ([`db`]) or in a [`queue`](mod@queue); the
//! server's `wrun.toml` grants them by their labels.
//!
//! ```no_run
//! use wrun_sdk::http::{Request, Response, StatusCode};
//! use wrun_sdk::{db, http};
//!
//! #[wrun_sdk::http]
//! fn main(_request: Request) -> Result<Response, db::Error> {
//!     let visits: i64 = db::open("default")?.transaction(|tx| {
//!         tx.execute("UPDATE counters SET n = n + 1 WHERE name = $1", ("visits",))?;
//!         tx.query_one("SELECT n FROM counters WHERE name = $1", ("visits",))
//!     })?;
//!     Ok(http::text(StatusCode::OK, format!("visit {visits}\n")))
//! }
//! ```
//!
//! # Building
//!
//! A guest is an ordinary binary package, as `cargo new` makes it, built with
//! `cargo build --release --target wasm32-wasip2`; `wrun serve FOLDER` does that by itself. One of the annotated functions
//! is called `main`. In a library of crate type `cdylib`, which makes a component just as well, none has to be.
//!
//! One component can have both an [`http`](macro@http) and a [`consumer`] entry point. A guest that gets its requests
//! through another crate, such as `wstd`, can use the state interfaces of this one.
//!
//! On other targets the crate compiles, so that a guest's own logic can be tested there, but every call to the host panics.

pub mod bindings;
pub mod db;
pub mod http;
pub mod lock;
mod millis;
pub mod queue;

#[doc(hidden)]
pub mod entry;

/// Makes a function the component's HTTP handler: `fn(http::Request) -> impl http::IntoResponse`.
///
/// The function gets the whole request and returns the whole response; both bodies are in memory. An `Err` is written to
/// the log and answers 500.
///
/// ```no_run
/// use wrun_sdk::http::{self, Request, Response, StatusCode};
///
/// #[wrun_sdk::http]
/// fn main(request: Request) -> anyhow::Result<Response> {
///     let name = std::str::from_utf8(request.body())?;
///     Ok(http::text(StatusCode::OK, format!("Hello, {name}!\n")))
/// }
/// ```
pub use wrun_sdk_macros::http;

/// Makes a function the component's handler of messages: `fn(queue::Delivery) -> impl queue::IntoOutcome`.
///
/// It is called for each message of the queues under `[consumers]` in `wrun.toml`. Messages come at least once: what
/// handling one changes in a database belongs in one transaction with
/// [`mark_processed`](db::Transaction::mark_processed), so that it happens once. An `Err` is written to the log, and the
/// message comes again; the queue's last attempt sends it to the dead letters.
///
/// ```no_run
/// use serde::Deserialize;
/// use wrun_sdk::{db, queue::Delivery};
///
/// #[derive(Deserialize)]
/// struct Visit {
///     page: String,
/// }
///
/// #[wrun_sdk::consumer]
/// fn main(delivery: Delivery) -> anyhow::Result<()> {
///     let visit: Visit = delivery.json()?;
///     db::open("default")?.transaction(|tx| {
///         if tx.mark_processed(&delivery.id)? {
///             tx.execute("UPDATE pages SET visits = visits + 1 WHERE name = $1", (visit.page.as_str(),))?;
///         }
///         Ok(())
///     })
/// }
/// ```
pub use wrun_sdk_macros::consumer;
