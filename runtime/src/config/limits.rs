//! The limits on requests, connections and workers: each is a flag of `wrun serve`, a key of `[limits]` in the manifest,
//! and a default.

use super::units::{Size, Span};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Declares every limit once: the optional form that flags and manifest fill in, and the settled form.
macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident: $given:ty = $default:literal => $settled:ty;)*) => {
        /// Limits as given: what is absent falls back to the manifest, then to the default.
        #[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        #[command(next_help_heading = "Limits")]
        pub struct LimitArgs {
            $($(#[doc = $doc])*
            #[doc = concat!("[default: ", $default, "]")]
            #[arg(long)]
            pub $name: Option<$given>,)*
        }

        /// Limits in force.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub struct Limits {
            $($(#[doc = $doc])*
            pub $name: $settled,)*
        }

        impl Limits {
            /// Settles every limit: flag over manifest over default.
            pub fn merge(flags: &LimitArgs, manifest: &LimitArgs) -> Result<Self, Failure> {
                let limits = Self {
                    $($name: flags.$name.or(manifest.$name)
                        .unwrap_or_else(|| $default.parse().expect("a default")).settle(),)*
                };
                limits.check()?;
                Ok(limits)
            }
        }
    };
}

limits! {
    /// Memory that one request's instance may have, over all its memories and tables
    memory: Size = "128MiB" => u64;
    /// CPU time that one request may use; past it the answer is 504
    cpu: Span = "10s" => Duration;
    /// Time that one request may take, its answer's body included; past it the answer is 504
    timeout: Span = "30s" => Duration;
    /// Request body; past it the answer is 413
    request_body: Size = "10MiB" => u64;
    /// Response body; past it the connection is cut
    response_body: Size = "4GiB" => u64;
    /// Requests that one worker handles at a time; past it they wait briefly, then the answer is 503
    in_flight: u32 = "128" => u32;
    /// Connections that one worker holds at a time; past it they wait to be accepted
    connections: u32 = "1024" => u32;
    /// Resource handles that one request's instance may hold
    handles: u32 = "4096" => u32;
    /// Bytes that a guest may pass in one call to the host
    host_call: Size = "16MiB" => u64;
    /// Bytes that one request may write to the log
    log: Size = "64KiB" => u64;
    /// Outbound requests that one request may send
    outbound_requests: u32 = "64" => u32;
    /// Outbound requests that one worker has under way at a time; past it they fail
    outbound_parallel: u32 = "512" => u32;
    /// Header fields of an outbound request, and of its answer
    outbound_headers: u32 = "100" => u32;
    /// Header fields of an outbound request, and of its answer, in bytes
    outbound_header_bytes: Size = "64KiB" => u64;
    /// Body of an outbound request
    outbound_request_body: Size = "1GiB" => u64;
    /// Body of an answer to an outbound request
    outbound_response_body: Size = "1GiB" => u64;
    /// Time to find and connect to another server, TLS included
    outbound_connect: Span = "10s" => Duration;
    /// Time until another server answers, once connected
    outbound_first_byte: Span = "25s" => Duration;
    /// Time that another server may pause in the body of its answer
    outbound_between_bytes: Span = "25s" => Duration;
    /// Time that one outbound request may take, its answer's body included
    outbound_timeout: Span = "60s" => Duration;
    /// Lock keys that one request may hold at a time
    request_locks: u32 = "1000" => u32;
    /// Transactions that one request may have open at a time
    request_transactions: u32 = "64" => u32;
    /// Messages that one request may send
    request_messages: u32 = "10000" => u32;
    /// Request line and headers; past it the answer is 431
    header_bytes: Size = "32KiB" => u64;
    /// Header fields of a request; past it the answer is 431
    headers: u32 = "100" => u32;
    /// Time for the first byte of a connection and for the whole head of a request
    header_timeout: Span = "10s" => Duration;
    /// Time that a keep-alive connection may stay idle
    idle_timeout: Span = "60s" => Duration;
    /// Time that a client may send or take less than 1 KiB/s of a body; past it the answer is 408 or the connection is cut
    stall_timeout: Span = "30s" => Duration;
    /// Requests on one connection before it is closed, so that load spreads over the workers again
    connection_requests: u32 = "1000" => u32;
    /// Age of a connection before it is closed, for the same reason
    connection_age: Span = "5min" => Duration;
    /// CPU time that compiling the component may take
    compile_cpu: Span = "5min" => Duration;
    /// Memory that compiling the component may take
    compile_memory: Size = "4GiB" => u64;
}

#[cfg(any(test, feature = "fuzz"))]
impl Default for Limits {
    fn default() -> Self {
        let none = LimitArgs::default();
        Self::merge(&none, &none).expect("defaults are allowed")
    }
}

impl Limits {
    /// Refuses values that nothing could run with.
    fn check(&self) -> Result<(), Failure> {
        let wrong = |name: &str, why: &str| {
            Err(
                Failure::new(ExitCode::Config, format!("limit {name} {why}"))
                    .hint(format!("change --{name} or `{name}` in [limits]")),
            )
        };
        // A linear memory slot is 4 GiB of address space, and wasm32 has no more.
        if self.memory > 4 << 30 {
            return wrong(
                "memory",
                "is over 4 GiB, the most that a 32-bit component can have",
            );
        }
        if self.memory < 64 << 10 {
            return wrong("memory", "is under 64KiB, one page of WebAssembly memory");
        }
        // Each slot reserves 4 GiB of a 128 TiB address space.
        if !(1..=4096).contains(&self.in_flight) {
            return wrong("in-flight", "is not between 1 and 4096");
        }
        // The allocator and the compiler's threads take address space before the first instruction is compiled.
        if self.compile_memory < 2 << 30 {
            return wrong(
                "compile-memory",
                "is under 2GiB, which no component can be compiled with",
            );
        }
        if self.connections == 0 {
            return wrong("connections", "is 0");
        }
        // hyper needs room for a request line and a few fields.
        if !(8 << 10..=1 << 20).contains(&self.header_bytes) {
            return wrong("header-bytes", "is not between 8KiB and 1MiB");
        }
        if !(8..=1000).contains(&self.headers) {
            return wrong("headers", "is not between 8 and 1000");
        }
        if !(8 << 10..=1 << 20).contains(&self.outbound_header_bytes) {
            return wrong("outbound-header-bytes", "is not between 8KiB and 1MiB");
        }
        if !(8..=1000).contains(&self.outbound_headers) {
            return wrong("outbound-headers", "is not between 8 and 1000");
        }
        Ok(())
    }
}

/// The step from a value as given to a value in force.
trait Settle {
    type Settled;
    fn settle(self) -> Self::Settled;
}

impl Settle for Size {
    type Settled = u64;
    fn settle(self) -> u64 {
        self.bytes()
    }
}

impl Settle for Span {
    type Settled = Duration;
    fn settle(self) -> Duration {
        self.duration()
    }
}

impl Settle for u32 {
    type Settled = Self;
    fn settle(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_wins_over_manifest_and_manifest_over_default() {
        let manifest: LimitArgs = toml::from_str("memory = \"64MiB\"\ncpu = \"2s\"").unwrap();
        let flags = LimitArgs {
            memory: Some("32MiB".parse().unwrap()),
            ..LimitArgs::default()
        };
        let limits = Limits::merge(&flags, &manifest).unwrap();
        assert_eq!(limits.memory, 32 << 20);
        assert_eq!(limits.cpu, Duration::from_secs(2));
        assert_eq!(limits.timeout, Duration::from_secs(30));
    }

    #[test]
    fn memory_beyond_wasm32_is_refused() {
        let flags = LimitArgs {
            memory: Some("5GiB".parse().unwrap()),
            ..LimitArgs::default()
        };
        let failure = Limits::merge(&flags, &LimitArgs::default()).unwrap_err();
        assert!(failure.hint.unwrap().contains("--memory"));
    }
}
