//! Compiling: a component in, a signed `.cwasm` out.
//!
//! Runs in processes that end afterwards: the compile child, which `prepare` limits, and `wrun compile`. Never in the
//! supervisor or a worker: compiling starts threads, and a hostile component can make it take all there is.

use super::artifact::{self, Description};
use super::contents::{self, Contents};
use super::fuse;
use super::inspect::inspect;
use super::key::Key;
use super::linker;
use super::profile::Profile;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use std::borrow::Cow;
use std::path::Path;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The largest file that is taken for a component, in bytes.
pub(crate) const COMPONENT_MAX: u64 = 256 << 20;

/// A compiled component that is known to link.
pub(crate) struct Compiled {
    /// wasmtime's image.
    pub(crate) image: Vec<u8>,
    /// What its memory begins with, if that is not in the image.
    pub(crate) contents: Option<Contents>,
    pub(crate) description: Description,
}

/// Returns the engine that compiles for `profile`.
pub(crate) fn engine(profile: Profile) -> Result<Engine, Failure> {
    Engine::new(&profile.config()).or_fail(ExitCode::Internal, || {
        "cannot set up the compiler".to_owned()
    })
}

/// Compiles `wasm`, after checks that need no compiler.
pub(crate) fn compile(wasm: &[u8]) -> Result<Compiled, Failure> {
    let outside = inspect(wasm)?;
    let engine = engine(outside.profile)?;
    let linker = linker::linker(&engine, outside.profile)
        .or_fail(ExitCode::Internal, || "cannot set up the linker".to_owned())?;
    linker::check_imports(&linker, &outside.imports)?;
    let (component, contents) = translate(&engine, wasm)?;
    let description = describe(&component, outside.profile)?;
    link(&linker, &component, outside.profile)?;
    let image = component.serialize().or_fail(ExitCode::Internal, || {
        "cannot serialise the compiled code".to_owned()
    })?;
    Ok(Compiled {
        image,
        contents,
        description,
    })
}

/// Compiles `wasm` to be quick to instantiate, or, if it is not of the kind that this is possible for, as it is.
fn translate(engine: &Engine, wasm: &[u8]) -> Result<(Component, Option<Contents>), Failure> {
    if let Some(fused) = fuse::fuse(wasm) {
        match translate_modules(engine, &fused) {
            Ok(done) => return Ok(done),
            Err(error) => {
                tracing::warn!(%error, "the component is compiled with its modules apart")
            }
        }
    }
    translate_modules(engine, wasm).map_err(|error| {
        Failure::new(
            ExitCode::BadComponent,
            format!("the component is broken: {error:#}"),
        )
        .hint("build it again")
    })
}

fn translate_modules(
    engine: &Engine,
    wasm: &[u8],
) -> wasmtime::Result<(Component, Option<Contents>)> {
    let (wasm, contents) = match contents::take_out(wasm) {
        Some((rest, contents)) => (Cow::from(rest), Some(contents)),
        None => (Cow::from(wasm), None),
    };
    Ok((Component::new(engine, &wasm)?, contents))
}

/// Compiles the file `input` to `output`, signed with `key`: what `wrun compile` does.
pub fn compile_file(input: &Path, output: &Path, key: &Key) -> Result<(), Failure> {
    let wasm = read(input)?;
    let compiled = compile(&wasm)?;
    let file = artifact::seal(
        compiled.image,
        compiled.contents.as_ref(),
        &compiled.description,
        key,
    );
    std::fs::write(output, file).map_err(|error| {
        Failure::new(
            ExitCode::CannotCreate,
            format!("cannot write {}: {error}", output.display()),
        )
        .hint("name another file with -o")
    })
}

/// Reads a component file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let missing = |error| {
        Failure::new(ExitCode::NoInput, format!("cannot read {shown}: {error}"))
            .hint("name a component (.wasm), or compiled code (.cwasm)")
    };
    let metadata = std::fs::metadata(path).map_err(missing)?;
    if metadata.len() > COMPONENT_MAX {
        let message = format!(
            "{shown} has {} bytes, more than the {COMPONENT_MAX} of any component",
            metadata.len()
        );
        return Err(Failure::new(ExitCode::BadComponent, message).hint("is it the right file?"));
    }
    std::fs::read(path).map_err(missing)
}

/// Checks the types of everything that the component imports, and of the handlers that it exports.
pub(crate) fn link(
    linker: &wasmtime::component::Linker<super::store::GuestState>,
    component: &Component,
    profile: Profile,
) -> Result<(), Failure> {
    super::handler::pre(linker, component, profile)
        .map(drop)
        .map_err(|error| {
            Failure::new(
                ExitCode::BadComponent,
                format!("the component does not fit: {error:#}"),
            )
            .hint("build it against released versions of WASI 0.2 or 0.3, and of wrun's own interfaces")
        })
}

fn describe(component: &Component, profile: Profile) -> Result<Description, Failure> {
    // A component without these figures imports core modules, which `check_imports` has refused already.
    let needs = component.resources_required().ok_or_else(|| {
        Failure::new(ExitCode::BadComponent, "the component imports modules")
            .hint("compose it with them first")
    })?;
    Ok(Description {
        profile,
        memories: needs.num_memories,
        tables: needs.num_tables,
        core_instances: CORE_INSTANCES_MAX,
        initial_memory: needs.max_initial_memory_size.unwrap_or(0) * WASM_PAGE,
        contents: None,
    })
}

/// The size of a page of WebAssembly memory in bytes.
const WASM_PAGE: u64 = 64 << 10;

/// wasmtime does not tell how many core instances a component makes; composed Go components have been seen with 20.
const CORE_INSTANCES_MAX: u32 = 32;
