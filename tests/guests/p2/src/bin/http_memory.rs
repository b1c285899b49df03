//! Allocates and touches `?mib=N` MiB, and says how many it got.

use std::hint::black_box;

use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

const MIB: usize = 1024 * 1024;

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let wanted = query::number(&request, "mib").unwrap_or(0);
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for got in 0..wanted {
        let mut piece = Vec::new();
        if piece.try_reserve_exact(MIB).is_err() {
            drop(pieces); // Or there is no room left for the answer.
            return response::text(out, &format!("refused at {got}\n"));
        }
        piece.resize(MIB, 1);
        pieces.push(black_box(piece));
    }
    response::text(out, &format!("{wanted}\n"));
}
