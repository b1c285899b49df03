//! Drafts of WASI as Rust: generated from `runtime/wit`, which is as others published it.
//!
//! Each version of a draft is an interface of its own. Components for other hosts import them by these names.

use super::config::Variables;
use super::shared::{HasShare, ShareView};
use wasmtime::component::Linker;

wasmtime::component::bindgen!({
    path: "wit",
    world: "wrun:host/drafts",
    imports: {
        "wasi:config/store@0.2.0-rc.1": trappable,
        "wasi:keyvalue/store@0.2.0-draft.open": trappable,
        "wasi:keyvalue/store@0.2.0-draft.[drop]bucket": trappable,
        "wasi:keyvalue/store@0.2.0-draft2.open": trappable,
        "wasi:keyvalue/store@0.2.0-draft2.[drop]bucket": trappable,
        "wasi:keyvalue/atomics@0.2.0-draft2.[drop]cas": trappable,
        default: async | trappable,
    },
    with: {
        "wasi:keyvalue/store@0.2.0-draft.bucket": crate::state::keyvalue::Bucket,
        "wasi:keyvalue/store@0.2.0-draft2.bucket": crate::state::keyvalue::Bucket,
        "wasi:keyvalue/atomics@0.2.0-draft2.cas": crate::state::keyvalue::Seen,
    },
    trappable_error_type: {
        "wasi:keyvalue/store@0.2.0-draft.error" => crate::state::keyvalue::KeyValueError,
        "wasi:keyvalue/store@0.2.0-draft2.error" => crate::state::keyvalue::KeyValueError,
    },
});

/// Adds all of them to a linker.
pub(crate) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    share: fn(&mut T) -> ShareView<'_>,
    variables: fn(&mut T) -> &mut Variables,
) -> wasmtime::Result<()> {
    use wasi::config::store as config;
    use wasi::keyvalue0_2_0_draft as draft;
    use wasi::keyvalue0_2_0_draft2 as draft2;
    config::add_to_linker::<_, Variables>(linker, variables)?;
    draft::store::add_to_linker::<_, HasShare>(linker, share)?;
    draft::atomics::add_to_linker::<_, HasShare>(linker, share)?;
    draft::batch::add_to_linker::<_, HasShare>(linker, share)?;
    draft2::store::add_to_linker::<_, HasShare>(linker, share)?;
    draft2::atomics::add_to_linker::<_, HasShare>(linker, share)?;
    draft2::batch::add_to_linker::<_, HasShare>(linker, share)?;
    Ok(())
}
