//! `wrun.toml`: the settings that belong to an application rather than to one start of it.
//!
//! Unknown keys are errors: a misspelt limit that is silently ignored is no limit.

use super::sandbox::Mode;
use super::shared::{ConsumerKeys, DatabaseKeys, KeyValueKeys, LockKeys, QueueKeys, SharedKeys};
use super::{Grant, LimitArgs, Size, Span, Workers};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// The component, or the folder of the package that builds it; relative to the manifest.
    pub component: Option<PathBuf>,
    /// `[serve]`: how it is served.
    pub serve: Serve,
    /// `[env]`: the guest's environment.
    pub env: BTreeMap<String, String>,
    /// `[config]`: what guests read as `wasi:config`.
    pub config: BTreeMap<String, String>,
    /// `[outbound]`: where guests may send requests.
    pub outbound: Outbound,
    /// `[limits]`: what a request may use.
    pub limits: LimitArgs,
    /// `[locks]`: spaces of locks that guests may take.
    locks: BTreeMap<String, LockKeys>,
    /// `[databases]`: what guests may keep.
    databases: BTreeMap<String, DatabaseKeys>,
    /// `[queues]`: where guests may send messages.
    queues: BTreeMap<String, QueueKeys>,
    /// `[consumers]`: the queues whose messages the component handles.
    consumers: BTreeMap<String, ConsumerKeys>,
    /// `[keyvalue]`: key-value stores that guests may use.
    keyvalue: BTreeMap<String, KeyValueKeys>,
}

/// `[serve]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Serve {
    /// The addresses to listen on.
    pub addr: Vec<SocketAddr>,
    /// `"auto"` or a number.
    pub workers: Option<Workers>,
    /// The state folder; relative to the manifest.
    pub state: Option<PathBuf>,
    /// Whether every request is logged.
    pub access_log: Option<bool>,
    /// `"require"`, `"auto"` or `"off"`.
    pub sandbox: Option<Mode>,
    /// The user that workers, state process and compile child run as.
    pub user: Option<String>,
    /// Replace a worker after about this many requests.
    pub max_requests: Option<u64>,
    /// Replace a worker whose resident memory passes this.
    pub max_worker_memory: Option<Size>,
    /// How long a draining worker still answers keep-alive connections.
    pub drain_grace: Option<Span>,
    /// When a draining worker is cut off.
    pub drain_timeout: Option<Span>,
}

/// `[outbound]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Outbound {
    /// Grants as `scheme://host:port`.
    pub allow: Vec<Grant>,
}

impl Manifest {
    /// Reads `file`.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file).or_fail(ExitCode::NoInput, || {
            format!("cannot read {}", file.display())
        })?;
        Self::parse(&text).map_err(|mut failure| {
            failure.message = format!("{}: {}", file.display(), failure.message);
            failure
        })
    }

    /// Takes out what it says of shared state.
    pub fn shared(&mut self) -> SharedKeys {
        SharedKeys {
            locks: std::mem::take(&mut self.locks),
            databases: std::mem::take(&mut self.databases),
            queues: std::mem::take(&mut self.queues),
            consumers: std::mem::take(&mut self.consumers),
            keyvalue: std::mem::take(&mut self.keyvalue),
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let failure = Failure::new(
                ExitCode::Config,
                format!("line {line}: {}", error.message()),
            );
            let hint = suggestion(error.message());
            failure.hint(
                hint.unwrap_or_else(|| "the keys are described in docs/manifest.md".to_owned()),
            )
        })
    }
}

/// Returns the nearest known key for serde's "unknown field `x`, expected one of `a`, `b`", or the nearest known word.
fn suggestion(message: &str) -> Option<String> {
    let mut quoted = message
        .strip_prefix("unknown field")
        .or_else(|| message.strip_prefix("unknown variant"))?
        .split('`')
        .skip(1)
        .step_by(2);
    let unknown = quoted.next()?;
    let (distance, nearest) = quoted
        .map(|key| (strsim::damerau_levenshtein(unknown, key), key))
        .min()?;
    (distance <= 3.max(unknown.len() / 2)).then(|| format!("did you mean `{nearest}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_key_is_an_error_that_names_line_and_nearest_key() {
        let failure = Manifest::parse("[serve]\nworker = 2\n").unwrap_err();
        assert!(
            failure
                .message
                .starts_with("line 2: unknown field `worker`"),
            "{}",
            failure.message
        );
        assert_eq!(failure.hint.as_deref(), Some("did you mean `workers`?"));
    }

    #[test]
    fn unknown_limit_is_an_error() {
        let failure = Manifest::parse("[limits]\nmemroy = \"1MiB\"\n").unwrap_err();
        assert_eq!(failure.hint.as_deref(), Some("did you mean `memory`?"));
    }

    #[test]
    fn unknown_key_of_shared_state_is_an_error_that_names_the_nearest() {
        for (toml, hint) in [
            (
                "[databases.a]\nmigration = \"sql\"\n",
                "did you mean `migrations`?",
            ),
            (
                "[databases.a]\ndurability = \"relax\"\n",
                "did you mean `relaxed`?",
            ),
            (
                "[queues.a]\nmax-atempts = 3\n",
                "did you mean `max-attempts`?",
            ),
            ("[consumers.a]\nbatches = 3\n", "did you mean `batch`?"),
            ("[queue.a]\n", "did you mean `queues`?"),
            (
                "[locks.a]\nttl = 3\n",
                "the keys are described in docs/manifest.md",
            ),
        ] {
            let failure = Manifest::parse(toml).unwrap_err();
            assert_eq!(failure.hint.as_deref(), Some(hint), "{failure}");
        }
    }

    #[test]
    fn every_section_is_read() {
        let manifest = Manifest::parse(
            "component = \"app.wasm\"\n[serve]\naddr = [\"127.0.0.1:0\"]\nworkers = 3\n[env]\nA = \"b\"\n[config]\nk = \"v\"\n\
             [outbound]\nallow = [\"https://example.com\"]\n[limits]\nin-flight = 7\n",
        )
        .unwrap();
        assert_eq!(manifest.serve.workers, Some("3".parse().unwrap()));
        assert_eq!(manifest.limits.in_flight, Some(7));
        assert_eq!(manifest.env["A"], "b");
        assert_eq!(manifest.config["k"], "v");
        assert_eq!(manifest.outbound.allow.len(), 1);
    }
}
