//! An ordinary program: a component that exports `wasi:cli/run` and no handler.

fn main() {
    println!("not a handler");
}
