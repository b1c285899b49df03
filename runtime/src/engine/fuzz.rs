//! Guests that a fuzzer writes: what one does about its answer, through the host functions that a component would call.

use super::ResponseBody;
use super::answer::answer;
use super::guest::{Deadline, Finished, Guest, Slot, Stopped};
use super::handler::FIELDS_MAX;
use super::store::{CpuMeter, GuestState, MemoryLimit, limit};
use crate::config::Limits;
use crate::host::cli::{Settings, Wasi};
use crate::host::config::Variables;
use crate::host::http::{Egress, Outbound};
use crate::host::quota::Quota;
use crate::host::shared::Share;
use bytes::Bytes;
use http::Response;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings::http::types::{
    ErrorCode, Fields, HostFields, HostOutgoingBody as _, HostOutgoingResponse,
    HostResponseOutparam, OutgoingBody,
};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpView as _};

/// How long a guest may take: it has nothing to do but to wait for its body to be read.
const TIME_MAX: Duration = Duration::from_secs(1);

/// What a host call may take, and handles that there may be.
const HOST_CALL_MAX: usize = 1 << 20;
const HANDLES_MAX: usize = 64;

/// A name and a value.
pub(crate) type Field = (String, Vec<u8>);

/// What the guest does, in this order.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) fields: Vec<Field>,
    pub(crate) status: u16,
    /// `None` if it never asks for the body.
    pub(crate) body: Option<Vec<Vec<u8>>>,
    /// Whether it says that the body has ended.
    pub(crate) ends: bool,
    pub(crate) trailers: Vec<Field>,
    /// Whether it traps at last.
    pub(crate) traps: bool,
}

/// Answers a request as `script` says.
pub(crate) async fn act(
    script: Arc<Script>,
    to_head: bool,
    body_max: u64,
) -> Result<Response<ResponseBody>, Stopped> {
    let slot = Slot::default();
    let cpu = Arc::new(CpuMeter::new(TIME_MAX));
    let run = Box::pin(run(store(cpu.clone()), script, slot.clone()));
    let guest = Guest::new(run, slot, cpu, Deadline::after(TIME_MAX));
    answer(guest, to_head, body_max).await
}

fn store(cpu: Arc<CpuMeter>) -> Store<GuestState> {
    thread_local! {
        static ENGINE: Engine = Engine::default();
    }
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(FIELDS_MAX);
    let settings = Settings {
        env: Vec::new(),
        log_max: 0,
    };
    let state = GuestState {
        wasi: Wasi::new(Arc::new(settings), Arc::from("fuzz")),
        http,
        table: ResourceTable::new(),
        egress: Egress::new(Arc::new(Outbound::new(Vec::new(), Limits::default())), 0),
        share: Share::new(None, None, Quota::new(&Limits::default())),
        variables: Variables::new(BTreeMap::new()),
        memory: MemoryLimit::new(0),
        cpu,
    };
    let mut store = ENGINE.with(|engine| Store::new(engine, state));
    limit(&mut store, HANDLES_MAX, HOST_CALL_MAX);
    store
}

async fn run(mut store: Store<GuestState>, script: Arc<Script>, slot: Slot) -> Finished {
    let result = follow(&mut store, &script, slot).await;
    (store, result)
}

async fn follow(
    store: &mut Store<GuestState>,
    script: &Script,
    slot: Slot,
) -> wasmtime::Result<()> {
    let mut host = store.data_mut().http();
    let set = move |answer: Result<_, ErrorCode>| slot.set(answer.map_err(Into::into));
    let out = host.new_response_outparam_from_callback(set)?;
    let head = fields(store, &script.fields)?;
    let mut host = store.data_mut().http();
    let response = HostOutgoingResponse::new(&mut host, head)?;
    // A status that is none is refused, and the one from before stays.
    let _ = host.set_status_code(again(&response), script.status)?;
    let body = match &script.body {
        Some(_) => host.body(again(&response))?.ok(),
        None => None,
    };
    HostResponseOutparam::set(&mut host, out, Ok(response))?;
    if let Some(body) = body {
        write(store, &body, script.body.iter().flatten()).await?;
        if script.ends {
            let trailers = match script.trailers.as_slice() {
                [] => None,
                some => Some(fields(store, some)?),
            };
            // It is told what is wrong with the length, and may ignore that.
            let _ = store.data_mut().http().finish(body, trailers);
        }
    }
    if script.traps {
        wasmtime::bail!("trap");
    }
    Ok(())
}

/// Makes the fields of a head; those that are refused are left out.
fn fields(store: &mut Store<GuestState>, fields: &[Field]) -> wasmtime::Result<Resource<Fields>> {
    let mut host = store.data_mut().http();
    let made = HostFields::new(&mut host)?;
    for (name, value) in fields {
        let _ = host.append(again(&made), name.clone(), value.clone());
    }
    Ok(made)
}

/// Writes pieces for as long as they are taken.
async fn write(
    store: &mut Store<GuestState>,
    body: &Resource<OutgoingBody>,
    pieces: impl Iterator<Item = &Vec<u8>>,
) -> wasmtime::Result<()> {
    let Ok(stream) = store.data_mut().http().write(again(body))? else {
        return Ok(());
    };
    'pieces: for piece in pieces {
        let mut piece = Bytes::copy_from_slice(piece);
        while !piece.is_empty() {
            let out = store.data_mut().table.get_mut(&stream)?;
            out.ready().await;
            let Ok(room) = out.check_write() else {
                break 'pieces;
            };
            if out.write(piece.split_to(room.min(piece.len()))).is_err() {
                break 'pieces;
            }
        }
    }
    store.data_mut().table.delete(stream)?;
    Ok(())
}

/// Names a resource once more, as a guest does in each call.
fn again<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(resource.rep())
}
