//! What happens between a path on the command line and code that workers can run: find, build, check, compile, keep.
//!
//! Runs in the compile child, once per start and once per reload.

use super::artifact::{self, Description, Refusal};
use super::compile::{self, Compiled};
use super::key::Key;
use super::linker;
use super::profile::Profile;
use crate::config::sandbox::Mode;
use crate::config::{Config, Limits, ServeArgs, Shared, Source};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::sandbox::{Needs, Role};
use crate::{log, package};
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::hash::{Hash as _, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The file in the cache folder whose key signs what is kept there.
pub(crate) const CACHE_KEY: &str = "key";

/// What a generation of workers is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prepared {
    /// The settings, read afresh.
    pub config: Config,
    /// Compiled code in the cache.
    pub code: PathBuf,
    /// Whether the component handles requests. One that does not handles messages alone.
    pub handles_http: bool,
}

/// Reads the settings again and leaves compiled code of the component in the folder `cache`. What is read of the component
/// is read with no way out, if the kernel has what `sandbox` asks for.
pub fn prepare(args: &ServeArgs, cache: &Path, sandbox: Mode) -> Result<Prepared, Failure> {
    let config = Config::load(args)?;
    let file = match &config.source {
        Source::File(file) => file.clone(),
        Source::Package(folder) => package::build(folder)?,
    };
    limit_compiler(&config.limits)?;
    let bytes = compile::read(&file)?;
    let key = Key::open(&cache.join(CACHE_KEY))?;
    // Where it is, the process cannot look for it any more, once it is needed.
    let given_key =
        artifact::looks_compiled(&bytes).then(|| Key::open_default(config.key.as_deref()));
    let needs = Needs {
        read: vec![file.clone()],
        write: vec![cache.to_path_buf()],
        ..Needs::none(Role::Compile)
    };
    needs.lock_down(sandbox)?;
    let code = cache.join(cache_name(&bytes)?);
    let shown = |failure: Failure| Failure {
        message: format!("{}: {}", file.display(), failure.message),
        ..failure
    };
    let description = match artifact::open(&code, &key) {
        Ok((_, description)) => description,
        Err(_) => {
            let compiled = match given_key {
                Some(key) => key.and_then(|key| open_compiled(&file, &key)),
                None => {
                    log::say(&format!("wrun: compiling {}", file.display()));
                    compile::compile(&bytes)
                }
            };
            let Compiled {
                image,
                contents,
                description,
            } = compiled.map_err(shown)?;
            // Whether it arrived whole, each worker sees by the signature.
            let file = artifact::seal(image, contents.as_ref(), &description, &key);
            keep(&code, &file)?;
            description
        }
    };
    check_fit(&description, &config.limits).map_err(shown)?;
    check_consumers(description.profile, &config.shared).map_err(shown)?;
    Ok(Prepared {
        config,
        code,
        handles_http: description.profile.kind.is_some(),
    })
}

/// Limits this process, so that a hostile component costs a failed start or reload and nothing else.
fn limit_compiler(limits: &Limits) -> Result<(), Failure> {
    let cpu = limits.compile_cpu.as_secs().max(1);
    let memory = limits.compile_memory;
    // What a process says that runs into its limits is no message for a user; how it ended is.
    let null = fs::File::options().write(true).open("/dev/null");
    let null = null.or_fail(ExitCode::System, || "cannot open /dev/null".to_owned())?;
    setrlimit(Resource::RLIMIT_CPU, cpu, cpu)
        .and_then(|()| setrlimit(Resource::RLIMIT_DATA, memory, memory))
        .and_then(|()| setrlimit(Resource::RLIMIT_CORE, 0, 0))
        .and_then(|()| nix::unistd::dup2_stderr(null))
        .or_fail(ExitCode::System, || "cannot limit the compiler".to_owned())
}

/// Returns the name that code for these bytes is kept under: a hash of them and of all that compiling depends on.
fn cache_name(bytes: &[u8]) -> Result<String, Failure> {
    let mut hasher = Sha256Hasher(Sha256::new());
    hasher.write(env!("CARGO_PKG_VERSION").as_bytes());
    for concurrency in [false, true] {
        let profile = Profile {
            kind: None,
            consumer: false,
            concurrency,
        };
        compile::engine(profile)?
            .precompile_compatibility_hash()
            .hash(&mut hasher);
    }
    hasher.write(bytes);
    let hash = hasher.0.finalize();
    Ok(hash
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .chain([".cwasm".to_owned()])
        .collect())
}

/// Takes over a `.cwasm` that the user gave, if the user's key signed it and this wasmtime can run it.
fn open_compiled(file: &Path, key: &Key) -> Result<Compiled, Failure> {
    let refuse = |why: &dyn std::fmt::Display| {
        Failure::new(ExitCode::BadComponent, format!("the compiled code is refused: {why}"))
            .hint("compile the .wasm again with `wrun compile`, or name the key it was signed with by --key-file")
    };
    let (signed, description) = artifact::open(file, key).map_err(|refusal| match refusal {
        Refusal::Io(error) => Failure::new(ExitCode::NoInput, error.to_string()),
        refusal => refuse(&refusal),
    })?;
    let engine = compile::engine(description.profile)?;
    let component = signed.component(&engine).map_err(|error| refuse(&error))?;
    let linker = linker::linker(&engine, description.profile)
        .or_fail(ExitCode::Internal, || "cannot set up the linker".to_owned())?;
    compile::link(&linker, &component, description.profile)?;
    let image = component.serialize().or_fail(ExitCode::Internal, || {
        "cannot copy the compiled code".to_owned()
    })?;
    let contents = description
        .contents
        .map(|place| signed.contents(place))
        .transpose()
        .map_err(|error| refuse(&error))?;
    Ok(Compiled {
        image,
        contents,
        description,
    })
}

/// Refuses a component whose first memory alone is over the limit: each of its requests would fail.
fn check_fit(description: &Description, limits: &Limits) -> Result<(), Failure> {
    if description.initial_memory <= limits.memory {
        return Ok(());
    }
    let message = format!(
        "the component starts with {} bytes of memory, over its limit",
        description.initial_memory
    );
    Err(Failure::new(ExitCode::BadComponent, message)
        .hint("raise --memory or `memory` in [limits]"))
}

/// Refuses messages without a component that handles them, and a component that has nothing to handle.
fn check_consumers(profile: Profile, shared: &Shared) -> Result<(), Failure> {
    match (profile.consumer, shared.consumers.keys().next()) {
        (false, Some(queue)) => {
            let message = format!(
                "the component handles no messages, but [consumers.{queue}] has some for it"
            );
            Err(Failure::new(ExitCode::BadComponent, message)
                .hint("export wrun:queue/consumer@0.1.0, or remove the section from wrun.toml"))
        }
        (true, None) if profile.kind.is_none() => Err(Failure::new(
            ExitCode::BadComponent,
            "the component handles messages alone, and there is no queue for it",
        )
        .hint("name one with [consumers.QUEUE] in wrun.toml")),
        (true, None) => {
            log::say(
                "wrun: the component handles messages, but no [consumers.QUEUE] in wrun.toml names a queue",
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Writes `bytes` to `path` so that it is there whole or not at all, and never changes again: workers map it.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let mut permissions = file.metadata()?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o400);
        file.set_permissions(permissions)?;
        fs::rename(&part, path)
    };
    write().or_fail(ExitCode::CannotCreate, || {
        format!("cannot write {}", path.display())
    })
}

/// Lets what implements `Hash` be hashed with SHA-256.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("only the full hash is asked for")
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::Kind;
    use super::*;
    use crate::config::shared::Consumer;

    /// Checks a component that handles what is said against a manifest that names a queue or not.
    fn check(requests: bool, messages: bool, queue: bool) -> Option<String> {
        let profile = Profile {
            kind: requests.then_some(Kind::IncomingHandler),
            consumer: messages,
            concurrency: false,
        };
        let mut shared = Shared::default();
        if queue {
            let consumer = Consumer {
                batch: 1,
                concurrency: 1,
            };
            shared.consumers.insert("orders".to_owned(), consumer);
        }
        check_consumers(profile, &shared)
            .err()
            .map(|failure| failure.message)
    }

    #[test]
    fn messages_need_a_component_that_handles_them() {
        let message = check(true, false, true).unwrap();
        assert!(message.contains("[consumers.orders]"), "{message}");
        assert_eq!(check(true, true, true), None);
        assert_eq!(check(false, true, true), None);
    }

    #[test]
    fn component_that_handles_messages_alone_needs_a_queue() {
        assert!(check(false, true, false).is_some());
        assert_eq!(check(true, true, false), None);
        assert_eq!(check(true, false, false), None);
    }
}
