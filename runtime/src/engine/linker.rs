//! What a guest can import: all of `wasi:cli` 0.2 and 0.3 with nothing granted, and `wasi:http`.
//!
//! Real guests import the whole of `wasi:cli` for a hello world, so all of it is there: with no folders, no sockets and
//! no environment but the one that was configured.

use super::profile::Profile;
use super::store::GuestState;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use wasm_encoder as encode;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

/// Returns the linker for guests of `profile`.
pub(crate) fn linker(engine: &Engine, profile: Profile) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if profile.concurrency {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

/// Refuses a component that imports what `linker` does not have, and names all of it: fixing them one by one is no fun.
pub(crate) fn check_imports(
    engine: &Engine,
    linker: &Linker<GuestState>,
    imports: &[String],
) -> Result<(), Failure> {
    let unknown: Vec<_> = imports
        .iter()
        .filter(|name| !provides(engine, linker, name))
        .map(String::as_str)
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the component imports what wrun does not provide: {}",
        unknown.join(", ")
    );
    Err(Failure::new(ExitCode::BadComponent, message)
        .hint("compose it with components that export them, for example with `wac plug`"))
}

/// Tells whether `linker` has an instance called `name`, by its own rules for versions: asks it to link a component that
/// imports that instance and nothing of it.
fn provides(engine: &Engine, linker: &Linker<GuestState>, name: &str) -> bool {
    let mut types = encode::ComponentTypeSection::new();
    types.instance(&encode::InstanceType::new());
    let mut imports = encode::ComponentImportSection::new();
    imports.import(name, encode::ComponentTypeRef::Instance(0));
    let mut probe = encode::Component::new();
    probe.section(&types).section(&imports);
    Component::new(engine, probe.finish()).is_ok_and(|probe| linker.instantiate_pre(&probe).is_ok())
}
