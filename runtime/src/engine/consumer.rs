//! The component as a consumer: deliveries in, an outcome for each out.

use super::guest::Finished;
use super::store::GuestState;
use crate::host::bindings::WorkerPre;
use crate::host::bindings::exports::wrun::queue::consumer::{Delivery, Outcome};
use tokio::sync::oneshot;
use wasmtime::Store;

/// Runs a guest that exports `wrun:queue/consumer`; `outcomes` gets what it returns.
pub(super) async fn consumer(
    pre: WorkerPre<GuestState>,
    mut store: Store<GuestState>,
    batch: Vec<Delivery>,
    outcomes: oneshot::Sender<Vec<Outcome>>,
) -> Finished {
    let result = async {
        let worker = pre.instantiate_async(&mut store).await?;
        let returned = worker
            .wrun_queue_consumer()
            .call_handle(&mut store, &batch)
            .await?;
        // Whoever waits for them may have given up.
        let _ = outcomes.send(returned);
        wasmtime::Result::Ok(())
    }
    .await;
    (store, result)
}
