//! What a guest can import: all of `wasi:cli` 0.2 and 0.3 with nothing granted, `wasi:http`, what guests share, and drafts
//! of WASI that components for other hosts use.
//!
//! Real guests import the whole of `wasi:cli` for a hello world, so all of it is there: with no folders, no sockets and
//! no environment but the one that was configured.

use super::profile::Profile;
use super::store::GuestState;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::host::bindings;
use crate::host::drafts;
use crate::host::shared::HasShare;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use wasmtime::Engine;
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::p2::bindings::{io, random::insecure_seed};

/// Returns the linker for guests of `profile`.
pub(crate) fn linker(engine: &Engine, profile: Profile) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    without_context(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    bindings::Worker::add_to_linker::<_, HasShare>(&mut linker, GuestState::share)?;
    drafts::add_to_linker(&mut linker, GuestState::share, |state| &mut state.variables)?;
    if profile.concurrency {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

/// Has what most guests use do without the context, which would be made for it: `wasi:io` works on the table of resources
/// alone, and the seed of hash tables comes from where Rust's own gets its.
fn without_context(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    insecure_seed::add_to_linker::<_, HasSeed>(linker, |_| Seed)?;
    io::error::add_to_linker::<_, HasTable>(linker, |state| &mut state.table)?;
    io::poll::add_to_linker::<_, HasTable>(linker, |state| &mut state.table)?;
    io::streams::add_to_linker::<_, HasTable>(linker, |state| &mut state.table)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What the functions of `wasi:io` work on.
struct HasTable;

impl HasData for HasTable {
    type Data<'a> = &'a mut ResourceTable;
}

/// What seeds the hash tables of guests: keys that the system chose once and that differ from call to call, behind a hash
/// that does not give them away.
struct Seed;

impl insecure_seed::Host for Seed {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        let random = || RandomState::new().build_hasher().finish();
        Ok((random(), random()))
    }
}

struct HasSeed;

impl HasData for HasSeed {
    type Data<'a> = Seed;
}

/// Refuses a component that imports what `linker` does not have, and names all of it: fixing them one by one is no fun.
pub(crate) fn check_imports(
    linker: &Linker<GuestState>,
    imports: &[String],
) -> Result<(), Failure> {
    let mut probe = linker.clone();
    let unknown: Vec<_> = imports
        .iter()
        .filter(|name| !provides(&mut probe, name))
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

/// The releases that are linked, of wrun's own interfaces and of WASI; a guest of the same track, such as 0.2.3, gets
/// these.
const RELEASES: [(&str, &str); 3] = [("0.1.", "0.1.0"), ("0.2.", "0.2.12"), ("0.3.", "0.3.0")];

/// Interfaces of types alone: the linker has no instance of theirs, and needs none.
const TYPES_ALONE: [&str; 2] = ["wasi:cli/types@0.3.", "wasi:clocks/types@0.3."];

/// Tells whether `linker` has an instance called `name`. It cannot be asked that, but it refuses to define a name twice.
fn provides(linker: &mut Linker<GuestState>, name: &str) -> bool {
    if TYPES_ALONE.iter().any(|types| name.starts_with(types)) {
        return true;
    }
    let linked = name.rsplit_once('@').and_then(|(interface, version)| {
        let (_, release) = RELEASES
            .iter()
            .find(|(track, _)| version.starts_with(track) && !version.contains('-'))?;
        Some(format!("{interface}@{release}"))
    });
    // Asked once: after that the name is taken, whatever it was before.
    let linked = linked.as_deref().unwrap_or(name);
    linker.root().func_wrap(linked, |_, ()| Ok(())).is_err()
}

#[cfg(test)]
mod tests {
    use super::super::profile::Kind;
    use super::*;

    fn unknown(concurrency: bool, imports: &[&str]) -> Option<String> {
        let profile = Profile {
            kind: Some(Kind::IncomingHandler),
            consumer: false,
            concurrency,
        };
        let engine = Engine::new(&profile.config()).unwrap();
        let imports: Vec<_> = imports.iter().map(|name| (*name).to_owned()).collect();
        check_imports(&linker(&engine, profile).unwrap(), &imports)
            .err()
            .map(|failure| failure.message)
    }

    #[test]
    fn releases_of_a_track_are_provided() {
        for version in ["0.2.0", "0.2.12", "0.2.99"] {
            assert_eq!(
                unknown(false, &[&format!("wasi:cli/environment@{version}")]),
                None
            );
        }
        assert_eq!(
            unknown(
                true,
                &[
                    "wasi:http/client@0.3.2",
                    "wasi:io/streams@0.2.6",
                    "wasi:cli/types@0.3.0",
                    "wasi:clocks/types@0.3.0",
                ]
            ),
            None
        );
    }

    #[test]
    fn what_guests_share_is_provided_with_and_without_concurrency() {
        let imports = [
            "wrun:lock/lock@0.1.0",
            "wrun:db/db@0.1.0",
            "wrun:queue/queue@0.1.0",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:keyvalue/atomics@0.2.0-draft",
            "wasi:keyvalue/batch@0.2.0-draft",
            "wasi:keyvalue/store@0.2.0-draft2",
            "wasi:keyvalue/atomics@0.2.0-draft2",
            "wasi:keyvalue/batch@0.2.0-draft2",
            "wasi:config/store@0.2.0-rc.1",
        ];
        assert_eq!(unknown(false, &imports), None);
        assert_eq!(unknown(true, &imports), None);
        assert!(unknown(true, &["wrun:lock/lock@0.2.0"]).is_some());
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let imports = [
            "wasi:cli/environment@0.2.6",
            "acme:a/b@1.0.0",
            "acme:c/d@0.1.0",
            "acme:e/f@0.2.12",
            "wasi:http/types@0.3.0-rc-1",
            "plain",
        ];
        let message = unknown(false, &imports).unwrap();
        assert!(
            message.ends_with(": acme:a/b@1.0.0, acme:c/d@0.1.0, acme:e/f@0.2.12, wasi:http/types@0.3.0-rc-1, plain"),
            "{message}"
        );
    }
}
