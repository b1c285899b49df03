//! Attacks on the host's side of a call: too many handles, handles that are none, arguments that are too long, overlap or
//! are no values of their type, too many calls. `/` is harmless.
//!
//! What bindings would not let through is done by calling the imports as the component model sees them.

use std::hint::black_box;
use std::time::Duration;

use wasip2::cli::stdout;
use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, Method, OutgoingRequest};
use wasip2::random::random;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

const MIB: usize = 1024 * 1024;

/// More handles than anybody gets.
const MANY: usize = 1_000_000;

mod raw {
    //! The imports as the core module has them.

    #[link(wasm_import_module = "wasi:http/types@0.2.12")]
    unsafe extern "C" {
        #[link_name = "[method]fields.append"]
        pub fn append(
            fields: u32,
            name: usize,
            name_len: usize,
            value: usize,
            value_len: usize,
            result: *mut u8,
        );
        #[link_name = "[method]fields.set"]
        pub fn set(
            fields: u32,
            name: usize,
            name_len: usize,
            values: usize,
            values_len: usize,
            result: *mut u8,
        );
        #[link_name = "[resource-drop]fields"]
        pub fn drop_fields(fields: u32);
        #[link_name = "[method]outgoing-request.set-method"]
        pub fn set_method(request: u32, method: u32, other: usize, other_len: usize) -> u32;
        #[link_name = "[method]outgoing-request.set-scheme"]
        pub fn set_scheme(
            request: u32,
            some: u32,
            scheme: u32,
            other: usize,
            other_len: usize,
        ) -> u32;
        #[link_name = "[static]response-outparam.set"]
        pub fn respond(
            out: u32,
            is_err: u32,
            a: u32,
            b: u32,
            c: u64,
            d: u32,
            e: u32,
            f: u32,
            g: u32,
        );
    }

    #[link(wasm_import_module = "wasi:io/poll@0.2.12")]
    unsafe extern "C" {
        #[link_name = "poll"]
        pub fn poll(pollables: *const u32, len: usize, result: *mut u8);
    }
}

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    match query::path(&request).as_str() {
        "/" => return response::text(out, "harmless\n"),
        "/many-fields" => keep(Fields::new),
        "/many-pollables" => keep(|| monotonic_clock::subscribe_duration(1 << 60)),
        "/many-timers" => keep(|| monotonic_clock::subscribe_duration(1)),
        "/many-streams" => keep(stdout::get_stdout),
        "/many-requests" => keep(|| OutgoingRequest::new(Fields::new())),
        "/poll-many" => poll_many(),
        "/flood" => flood(),
        "/flood-log" => flood_log(),
        "/random" => drop(random::get_random_bytes(10 << 30)),
        "/random-within" => drop(random::get_random_bytes(
            query::number(&request, "bytes").unwrap_or(0),
        )),
        "/sleep-for-ever" => monotonic_clock::subscribe_duration(u64::MAX).block(),
        "/sleep-until-ever" => monotonic_clock::subscribe_instant(u64::MAX).block(),
        path => raw_call(path, &out),
    }
    response::text(out, "nothing stopped it\n");
}

/// Makes handles until the host objects.
fn keep<T>(make: impl Fn() -> T) {
    for _ in 0..MANY {
        std::mem::forget(make());
    }
}

/// Waits for one timer, a million times in one call.
fn poll_many() {
    let timer = monotonic_clock::subscribe_duration(1 << 60);
    let all = vec![timer.handle(); MANY];
    let mut result = [0_u8; 8];
    // SAFETY: the list lies in memory, the result has two words.
    unsafe { raw::poll(all.as_ptr(), all.len(), result.as_mut_ptr()) };
}

/// Calls the host for ever, cheaply.
fn flood() -> ! {
    let fields = Fields::new();
    loop {
        black_box(fields.has("x"));
    }
}

/// Writes to the log for ever.
fn flood_log() -> ! {
    loop {
        println!("{}", "x".repeat(1000));
    }
}

/// Calls an import in a way that no binding would.
fn raw_call(path: &str, out: &ResponseOutparam) {
    let fields = Fields::new();
    let handle = fields.handle();
    let (name, value) = (b"x-name", b"value");
    let mut result = [0_u8; 16];
    let result = result.as_mut_ptr();
    let append = |handle, name: &[u8], value: (usize, usize)| {
        // SAFETY: whatever is wrong with it, the host has to find out.
        unsafe {
            raw::append(
                handle,
                name.as_ptr() as usize,
                name.len(),
                value.0,
                value.1,
                result,
            )
        }
    };
    let value = (value.as_ptr() as usize, value.len());
    match path {
        "/use-after-drop" => {
            drop(fields);
            append(handle, name, value);
            return;
        }
        "/double-drop" => {
            drop(fields);
            // SAFETY: as above.
            unsafe { raw::drop_fields(handle) };
            return;
        }
        "/forged" => append(handle + 1000, name, value),
        "/forged-zero" => append(0, name, value),
        "/forged-largest" => append(u32::MAX, name, value),
        "/forged-kind" => append(out.handle(), name, value),
        "/huge-value" => {
            let huge = vec![b'x'; 64 * MIB];
            append(handle, name, (huge.as_ptr() as usize, huge.len()));
        }
        "/outside" => append(handle, name, (value.0, 1 << 30)),
        "/outside-all" => append(handle, name, (usize::MAX - 4, usize::MAX)),
        "/quadratic" => quadratic(handle, result),
        "/no-utf8" => append(handle, b"x-\xff\xfe", value),
        "/half-utf8" => append(handle, b"x-\xe2\x82", value),
        "/surrogate" => append(handle, b"x-\xed\xa0\x80", value),
        "/misaligned" => {
            // SAFETY: as above.
            unsafe { raw::set(handle, name.as_ptr() as usize, name.len(), 4097, 1, result) }
        }
        "/result-outside" => {
            // SAFETY: as above.
            unsafe {
                raw::append(
                    handle,
                    name.as_ptr() as usize,
                    name.len(),
                    value.0,
                    value.1,
                    0xffff_fff0 as *mut u8,
                )
            }
        }
        "/no-method" | "/no-scheme" | "/no-option" => out_of_range(path),
        "/twice" => twice(out),
        other => panic!("no such path: {other}"),
    }
    drop(fields);
}

/// A million values that are all the same megabyte.
fn quadratic(handle: u32, result: *mut u8) {
    let (name, piece) = (b"x-name", vec![b'x'; MIB]);
    let values = vec![(piece.as_ptr() as usize, piece.len()); MANY];
    // SAFETY: the list is one of pointers and lengths, as the host expects.
    unsafe {
        raw::set(
            handle,
            name.as_ptr() as usize,
            name.len(),
            values.as_ptr() as usize,
            values.len(),
            result,
        )
    };
}

/// A case that a variant does not have.
fn out_of_range(path: &str) {
    let request = OutgoingRequest::new(Fields::new());
    let _ = request.set_method(&Method::Get);
    let handle = request.handle();
    // SAFETY: whatever is wrong with it, the host has to find out.
    unsafe {
        match path {
            "/no-method" => raw::set_method(handle, 77, 0, 0),
            "/no-scheme" => raw::set_scheme(handle, 1, 1 << 31, 0, 0),
            _ => raw::set_scheme(handle, 2, 0, 0, 0),
        }
    };
}

/// Answers twice with what can be answered with once.
fn twice(out: &ResponseOutparam) {
    for _ in 0..2 {
        let made = wasip2::http::types::OutgoingResponse::new(Fields::new());
        let handle = made.take_handle();
        // SAFETY: the first call is right; the second names a handle that is gone.
        unsafe { raw::respond(out.handle(), 0, handle, 0, 0, 0, 0, 0, 0) };
    }
    std::thread::sleep(Duration::from_secs(1));
}
