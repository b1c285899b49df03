//! The component as a worker holds it: loaded once, instantiated for each request.

use super::answer::answer;
use super::artifact;
use super::body::{ResponseBody, Watched};
use super::consumer::consumer;
use super::guest::{Deadline, Finished, Guest, Slot, Stopped};
use super::key::Key;
use super::linker;
use super::pool;
use super::prepare::CACHE_KEY;
use super::profile::{Kind, Profile};
use super::store::{CpuMeter, GuestState, MemoryLimit, limit};
use super::ticks;
use crate::config::{Config, Limits};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::host::batch::Batch;
use crate::host::bindings::WorkerPre;
use crate::host::cli::{Settings, Wasi};
use crate::host::config::Variables;
use crate::host::http::{Egress, Outbound};
use crate::host::queue::{handed_over, settled};
use crate::host::quota::Quota;
use crate::host::shared::{Share, Shared};
use crate::state::client::Client;
use crate::state::queue::{Delivery, Outcome};
use http::{Method, Request, Response};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::oneshot;
use wasmtime::component::{
    Component, ComponentExportIndex, InstancePre, Linker, Resource, TypedFunc,
};
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{
    ErrorCode, IncomingRequest, ResponseOutparam, Scheme,
};
use wasmtime_wasi_http::p3::Request as ServiceRequest;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{WasiBody, WasiHttpCtx, WasiHttpView as _};

/// The body of a request, as a guest reads it.
pub type RequestBody = WasiBody;

/// Why a guest cannot read on in a request's body.
pub type BodyError = wasmtime_wasi_http::Error;

/// The component, ready to be instantiated.
pub(super) struct Pre {
    instance: InstancePre<GuestState>,
    handler: Option<HandlerPre>,
    consumer: Option<WorkerPre<GuestState>>,
}

/// The component, ready to handle requests.
enum HandlerPre {
    IncomingHandler(IncomingHandlerPre),
    Service(ServicePre<GuestState>),
}

/// A component that exports `wasi:http/incoming-handler@0.2`, and where its function is: the bindings would look for it
/// in each instance.
#[derive(Clone)]
struct IncomingHandlerPre {
    instance: InstancePre<GuestState>,
    handle: ComponentExportIndex,
}

impl IncomingHandlerPre {
    fn new(instance: InstancePre<GuestState>) -> wasmtime::Result<Self> {
        // Checks the type.
        ProxyPre::new(instance.clone())?;
        let component = instance.component();
        let handle = component
            .get_export_index(None, INCOMING_HANDLER)
            .and_then(|interface| component.get_export_index(Some(&interface), "handle"));
        let handle = handle.ok_or_else(|| wasmtime::format_err!("no {INCOMING_HANDLER}"))?;
        Ok(Self { instance, handle })
    }
}

/// The release that is asked for; any other of its track is found by it.
const INCOMING_HANDLER: &str = "wasi:http/incoming-handler@0.2.12";

/// Checks that `component` fits `linker` and exports the handlers that it is said to.
pub(super) fn pre(
    linker: &Linker<GuestState>,
    component: &Component,
    profile: Profile,
) -> wasmtime::Result<Pre> {
    let instance = linker.instantiate_pre(component)?;
    let handler = match profile.kind {
        Some(Kind::IncomingHandler) => Some(HandlerPre::IncomingHandler(IncomingHandlerPre::new(
            instance.clone(),
        )?)),
        Some(Kind::Service) => Some(HandlerPre::Service(ServicePre::new(instance.clone())?)),
        None => None,
    };
    let consumer = if profile.consumer {
        Some(WorkerPre::new(instance.clone())?)
    } else {
        None
    };
    Ok(Pre {
        instance,
        handler,
        consumer,
    })
}

/// A component that handles requests, messages or both. One per worker.
pub struct Handler {
    engine: Engine,
    pre: Pre,
    limits: Limits,
    wasi: Arc<Settings>,
    variables: Variables,
    outbound: Arc<Outbound>,
    /// `None` if the manifest grants nothing that guests share.
    shared: Option<Arc<Shared>>,
}

impl Handler {
    /// Loads the compiled code that the compile child left at `code`. What guests share they reach over `client`.
    pub fn load(code: &Path, config: &Config, client: Option<Client>) -> Result<Self, Failure> {
        let refuse = |why: &dyn std::fmt::Display| {
            Failure::new(
                ExitCode::BadComponent,
                format!("cannot load {}: {why}", code.display()),
            )
            .hint("remove that file and start again: it is made anew")
        };
        let folder = code.parent().unwrap_or_else(|| Path::new("."));
        let key = Key::open(&folder.join(CACHE_KEY))?;
        let (signed, description) =
            artifact::open(code, &key).map_err(|refusal| refuse(&refusal))?;
        let mut settings = description.profile.config();
        pool::allocate(&mut settings, &signed, &description, config)
            .map_err(|error| refuse(&error).hint(TOO_MUCH))?;
        let engine = Engine::new(&settings).map_err(|error| {
            Failure::new(
                ExitCode::System,
                format!("cannot set up the instance pool: {error:#}"),
            )
            .hint("lower --in-flight or --memory, or raise the limit on address space (ulimit -v)")
        })?;
        let component = signed
            .component(&engine)
            .map_err(|error| refuse(&error).hint(TOO_MUCH))?;
        component
            .initialize_copy_on_write_image()
            .map_err(|error| refuse(&error).hint(TOO_MUCH))?;
        let linker =
            linker::linker(&engine, description.profile).map_err(|error| refuse(&error))?;
        let pre = pre(&linker, &component, description.profile).map_err(|error| refuse(&error))?;
        ticks::start(&engine).map_err(|error| refuse(&format!("{error:#}")))?;
        Ok(Self {
            engine,
            pre,
            limits: config.limits.clone(),
            wasi: Arc::new(Settings {
                env: config.env.clone().into_iter().collect(),
                log_max: config.limits.log,
            }),
            variables: Variables::new(config.variables.clone()),
            outbound: Arc::new(Outbound::new(
                config.outbound.clone(),
                config.limits.clone(),
            )),
            shared: client.map(|client| Arc::new(Shared::new(config.shared.clone(), client))),
        })
    }

    /// Makes an instance and drops it: what cannot work is found before the first request, and the first request finds
    /// the pool's first slot warm.
    pub async fn try_instance(&self) -> Result<(), Failure> {
        let mut store = self.store(
            &Arc::from("start"),
            Arc::new(CpuMeter::new(self.limits.cpu)),
            None,
        );
        let made = self.pre.instance.instantiate_async(&mut store);
        match tokio::time::timeout(self.limits.timeout, made).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(
                ExitCode::BadComponent,
                format!("the component cannot be instantiated: {error:#}"),
            )
            .hint("see its log; raise --memory or --cpu if it needs more to start")),
            Err(_) => Err(Failure::new(
                ExitCode::BadComponent,
                "the component does not come to an end of its start",
            )
            .hint("raise --timeout if it needs longer to start")),
        }
    }

    /// Handles one request in an instance of its own. The answer is returned when its head is known. `hold` is kept until
    /// the guest is over, which may be after its answer.
    pub async fn handle(
        &self,
        request: Request<RequestBody>,
        id: &Arc<str>,
        hold: impl Send + 'static,
    ) -> Result<Response<ResponseBody>, Stopped> {
        let Some(handler) = &self.pre.handler else {
            return Err(Stopped::NoHandler);
        };
        let to_head = *request.method() == Method::HEAD;
        let cpu = Arc::new(CpuMeter::new(self.limits.cpu));
        let slot = Slot::default();
        let store = self.store(id, cpu.clone(), None);
        let run: Pin<Box<dyn Future<Output = Finished> + Send>> = match handler {
            HandlerPre::IncomingHandler(pre) => {
                let run = incoming_handler(pre.clone(), store, request, slot.clone());
                Box::pin(holding(run, hold))
            }
            HandlerPre::Service(pre) => {
                let run = service(pre.clone(), store, request, slot.clone());
                Box::pin(holding(run, hold))
            }
        };
        let guest = Guest::new(run, slot, cpu, Deadline::after(self.limits.timeout));
        answer(guest, to_head, self.limits.response_body).await
    }

    /// Handles messages of one queue in an instance of its own, and returns an outcome for each. Takes from `deliveries`
    /// what only the guest needs.
    pub async fn consume(
        &self,
        queue: &str,
        deliveries: &mut [Delivery],
        id: &Arc<str>,
    ) -> Result<Vec<Outcome>, Stopped> {
        let Some(pre) = &self.pre.consumer else {
            return Err(Stopped::NoHandler);
        };
        let batch = Arc::new(Batch::new(queue, deliveries));
        let cpu = Arc::new(CpuMeter::new(self.limits.cpu));
        let store = self.store(id, cpu.clone(), Some(batch.clone()));
        let given = deliveries.iter_mut().map(handed_over).collect();
        let (sender, mut outcomes) = oneshot::channel();
        let run = Box::pin(consumer(pre.clone(), store, given, sender));
        let guest = Guest::new(run, Slot::default(), cpu, Deadline::OfBatch(batch));
        guest.end().await?;
        let outcomes = outcomes.try_recv().map_err(|_| Stopped::Silent)?;
        if outcomes.len() != deliveries.len() {
            return Err(Stopped::Invalid(format!(
                "{} outcomes for {} messages",
                outcomes.len(),
                deliveries.len()
            )));
        }
        Ok(outcomes.into_iter().map(settled).collect())
    }

    /// Returns a store for one instance: nothing in it is from another.
    fn store(
        &self,
        id: &Arc<str>,
        cpu: Arc<CpuMeter>,
        batch: Option<Arc<Batch>>,
    ) -> Store<GuestState> {
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS_MAX);
        let state = GuestState {
            wasi: Wasi::new(self.wasi.clone(), id.clone()),
            http,
            table: wasmtime::component::ResourceTable::new(),
            egress: Egress::new(self.outbound.clone(), self.limits.outbound_requests),
            share: Share::new(self.shared.clone(), batch, Quota::new(&self.limits)),
            variables: self.variables.clone(),
            memory: MemoryLimit::new(usize::try_from(self.limits.memory).unwrap_or(usize::MAX)),
            cpu,
        };
        let mut store = Store::new(&self.engine, state);
        let host_call = usize::try_from(self.limits.host_call).unwrap_or(usize::MAX);
        limit(&mut store, self.limits.handles as usize, host_call);
        store
    }
}

/// What to do about a component that does not fit.
const TOO_MUCH: &str =
    "the component may need more tables, instances or memories than wrun gives one";

/// What the header fields of one message may take in memory, in bytes.
pub(super) const FIELDS_MAX: usize = 128 << 10;

/// Runs `run` and drops `hold` with it.
async fn holding(run: impl Future<Output = Finished>, hold: impl Send) -> Finished {
    let finished = run.await;
    drop(hold);
    finished
}

/// Runs a guest that exports `wasi:http/incoming-handler@0.2`.
async fn incoming_handler(
    pre: IncomingHandlerPre,
    mut store: Store<GuestState>,
    request: Request<RequestBody>,
    slot: Slot,
) -> Finished {
    let result = async {
        let instance = pre.instance.instantiate_async(&mut store).await?;
        let handle: TypedFunc<(Resource<IncomingRequest>, Resource<ResponseOutparam>), ()> =
            instance.get_typed_func(&mut store, pre.handle)?;
        let request = store
            .data_mut()
            .http()
            .new_incoming_request(Scheme::Http, request)?;
        let set = move |answer: Result<_, ErrorCode>| slot.set(answer.map_err(Into::into));
        let out = store
            .data_mut()
            .http()
            .new_response_outparam_from_callback(set)?;
        handle.call_async(&mut store, (request, out)).await
    }
    .await;
    (store, result)
}

/// Runs a guest that exports `wasi:http/handler@0.3`.
async fn service(
    pre: ServicePre<GuestState>,
    mut store: Store<GuestState>,
    request: Request<RequestBody>,
    slot: Slot,
) -> Finished {
    let result = async {
        let service = pre.instantiate_async(&mut store).await?;
        store
            .run_concurrent(async |accessor| {
                let (request, io) = accessor.with(|mut store| {
                    let (request, io) =
                        ServiceRequest::from_http(store.data_mut().http().hooks, request);
                    (
                        request,
                        Box::pin(io) as Pin<Box<dyn Future<Output = _> + Send>>,
                    )
                });
                let over = match service.handle(accessor, request).await? {
                    Ok(response) => {
                        let response = accessor.with(|store| response.into_http(store, io))?;
                        let (head, body) = response.into_parts();
                        let (body, over) = Watched::watch(body);
                        slot.set(Ok(Response::from_parts(head, body)));
                        Some(over)
                    }
                    Err(error) => {
                        slot.set(Err(error.into()));
                        None
                    }
                };
                // The body advances only while the store is driven, and so does work that the guest left behind.
                if let Some(over) = over {
                    let _ = over.await;
                }
                std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                wasmtime::Result::Ok(())
            })
            .await?
    }
    .await;
    (store, result)
}
