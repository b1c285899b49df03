//! Attacks with what an instance has of its own: its time, its memory, its stack and its end. `/` is harmless.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

const MIB: usize = 1024 * 1024;
const PAGE_LEN: usize = 64 * 1024;

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    match query::path(&request).as_str() {
        "/" => response::text(out, "harmless\n"),
        "/loop" => spin(),
        "/fill" => fill(query::number(&request, "mib").unwrap_or(64)),
        "/recurse" => {
            black_box(descend(0));
        }
        "/grow" => response::text(out, &format!("{}\n", grow())),
        "/bomb" => bomb(),
        "/hoard" => {
            hoard();
            response::text(out, "hoarded\n");
        }
        "/hold" => {
            black_box(vec![1_u8; 32 * MIB]);
            thread::sleep(Duration::from_secs(3600));
        }
        "/sleep" => thread::sleep(Duration::MAX),
        "/exit" => std::process::exit(1),
        "/exit-well" => std::process::exit(0),
        "/abort" => std::process::abort(),
        "/unreachable" => core::arch::wasm32::unreachable(),
        "/null" => {
            // SAFETY: there is none; the end of the address space is what is asked for.
            black_box(unsafe { core::ptr::read_volatile(usize::MAX as *const u8) });
        }
        other => response::respond(out, 404, &[], other.as_bytes()),
    }
}

fn spin() -> ! {
    let mut rounds = 0_u64;
    loop {
        rounds = black_box(rounds.wrapping_add(1));
    }
}

/// Fills and copies memory for ever, in instructions that each take long.
fn fill(mib: usize) -> ! {
    let mut memory = vec![0_u8; mib * MIB];
    let half = memory.len() / 2;
    for value in 0_u8.. {
        black_box(&mut memory).fill(value);
        black_box(&mut memory).copy_within(..half, half);
    }
    spin()
}

#[expect(unconditional_recursion, reason = "the point of it")]
fn descend(depth: u64) -> u64 {
    // Used after the call too, so that this cannot become a loop.
    let frame = black_box([depth; 8]);
    black_box(descend(depth + 1)) + frame[0]
}

/// Grows until it is refused; returns the size in MiB.
fn grow() -> usize {
    while core::arch::wasm32::memory_grow::<0>(16) != usize::MAX {}
    core::arch::wasm32::memory_size::<0>() * PAGE_LEN / MIB
}

/// Takes and touches all memory that there is, and keeps it for a while.
fn hoard() {
    let mut pieces = Vec::new();
    loop {
        let mut piece: Vec<u8> = Vec::new();
        if piece.try_reserve_exact(MIB).is_err() {
            break;
        }
        piece.resize(MIB, 1);
        pieces.push(black_box(piece));
    }
    // Or there is no room left for the answer.
    pieces.pop();
    thread::sleep(Duration::from_millis(200));
}

/// Allocates and touches until there is nothing left, which ends a Rust program.
fn bomb() -> ! {
    let mut pieces = Vec::new();
    loop {
        pieces.push(black_box(vec![1_u8; MIB]));
    }
}
