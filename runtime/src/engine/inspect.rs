//! A look at a component before it is compiled: is it one, and what does it import and export?
//!
//! Reads names only; types are checked when it is linked.

use super::profile::{Kind, Profile};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use wasmparser::{Encoding, Parser, Payload};

/// The outside of a component.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) profile: Profile,
    /// The names that it imports.
    pub(crate) imports: Vec<String>,
}

const INCOMING_HANDLER: &str = "wasi:http/incoming-handler@0.2.";
const HANDLER: &str = "wasi:http/handler@0.3.";
const CONSUMER: &str = "wrun:queue/consumer@0.1.";

/// Reads the names that `wasm` imports and exports, and refuses what wrun cannot serve.
pub(crate) fn inspect(wasm: &[u8]) -> Result<Outside, Failure> {
    let (imports, exports) = names(wasm)?;
    let profile = profile(&imports, &exports)?;
    Ok(Outside { profile, imports })
}

fn profile(imports: &[String], exports: &[String]) -> Result<Profile, Failure> {
    let exported = |prefix: &str| exports.iter().any(|name| name.starts_with(prefix));
    let imported = |prefix: &str| imports.iter().any(|name| name.starts_with(prefix));
    if imported(HANDLER) || imported(INCOMING_HANDLER) {
        return Err(refuse(
            "the component is a middleware: it imports the handler that it passes requests on to",
        )
        .hint("compose it with a handler first, for example with `wac plug`"));
    }
    let consumer = exported(CONSUMER);
    let kind = match (exported(HANDLER), exported(INCOMING_HANDLER)) {
        (true, false) => Some(Kind::Service),
        (false, true) => Some(Kind::IncomingHandler),
        (true, true) => {
            return Err(refuse(format!(
                "the component exports two handlers: {}",
                list(exports)
            ))
            .hint("export either wasi:http/incoming-handler@0.2 or wasi:http/handler@0.3"));
        }
        (false, false) if consumer => None,
        (false, false) => {
            let exports = if exports.is_empty() {
                "nothing".to_owned()
            } else {
                list(exports)
            };
            return Err(refuse(format!(
                "the component has no handler: it exports {exports}"
            ))
            .hint(
                "export wasi:http/incoming-handler@0.2, wasi:http/handler@0.3 or wrun:queue/consumer@0.1.0, as what \
                 `wrun new` makes does",
            ));
        }
    };
    Ok(Profile {
        kind,
        consumer,
        concurrency: kind == Some(Kind::Service) || imports.iter().any(|name| is_wasi_0_3(name)),
    })
}

fn is_wasi_0_3(name: &str) -> bool {
    name.starts_with("wasi:")
        && name
            .split_once('@')
            .is_some_and(|(_, version)| version.starts_with("0.3."))
}

/// Returns what the outermost component imports and exports.
fn names(wasm: &[u8]) -> Result<(Vec<String>, Vec<String>), Failure> {
    let broken = |error| refuse(format!("the component is broken: {error}")).hint("build it again");
    if wasm.is_empty() {
        return Err(refuse("the file is empty").hint("build the component again"));
    }
    if !wasm.starts_with(b"\0asm") {
        return Err(refuse("the file is not WebAssembly").hint("name a component (.wasm)"));
    }
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(broken)? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(refuse("the file is a core module, not a component")
                    .hint("build for wasm32-wasip2, or wrap it with `wasm-tools component new`"));
            }
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.push(import.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.push(export.map_err(broken)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

fn list(names: &[String]) -> String {
    names.join(", ")
}

fn refuse(message: impl Into<String>) -> Failure {
    Failure::new(ExitCode::BadComponent, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_module_is_told_from_a_component() {
        let failure = inspect(b"\0asm\x01\0\0\0").unwrap_err();
        assert!(failure.message.contains("core module"), "{failure}");
    }

    #[test]
    fn component_without_exports_has_no_handler() {
        let failure = inspect(b"\0asm\x0d\0\x01\0").unwrap_err();
        assert!(
            failure.message.contains("no handler: it exports nothing"),
            "{failure}"
        );
    }

    #[test]
    fn truncated_component_is_broken() {
        let failure = inspect(b"\0asm\x0d\0\x01\0\x07\xff\x01").unwrap_err();
        assert!(failure.message.contains("broken"), "{failure}");
    }

    #[test]
    fn component_may_handle_requests_or_messages_or_both() {
        let profile = |exports: &[&str]| {
            let exports: Vec<_> = exports.iter().map(|name| (*name).to_owned()).collect();
            let profile = profile(&[], &exports).unwrap();
            (profile.kind, profile.consumer)
        };
        let (handler, consumer) = (
            "wasi:http/incoming-handler@0.2.3",
            "wrun:queue/consumer@0.1.0",
        );
        assert_eq!(profile(&[handler]), (Some(Kind::IncomingHandler), false));
        assert_eq!(profile(&[consumer]), (None, true));
        assert_eq!(
            profile(&[consumer, handler]),
            (Some(Kind::IncomingHandler), true)
        );
    }

    #[test]
    fn any_0_3_interface_needs_concurrency() {
        assert!(is_wasi_0_3("wasi:clocks/monotonic-clock@0.3.0"));
        assert!(!is_wasi_0_3("wasi:clocks/monotonic-clock@0.2.6"));
        assert!(!is_wasi_0_3("acme:clocks/monotonic-clock@0.3.0"));
    }
}
