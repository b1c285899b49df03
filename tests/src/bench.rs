//! What benchmarks have in common: figures of many runs, and the machine that they depend on.

pub mod figures;
pub mod machine;
