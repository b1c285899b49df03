# Lists what there is to do
default:
    @just --list

# Builds wrun
build:
    cargo build --release

# Runs all tests; guests that need npm or Python are left out where those are missing
test *args:
    cargo test --release --workspace {{args}}

# Checks with clippy
lint:
    cargo clippy --release --workspace --all-targets -- -D warnings

# Formats everything
fmt:
    cargo fmt --all
    cargo fmt --all --manifest-path examples/Cargo.toml
    cargo fmt --all --manifest-path tests/guests/Cargo.toml

# Replaces, kills, stops and starves workers under load and accounts for every request
faults rounds="20":
    cargo build --release --workspace
    target/release/faults {{rounds}}

# Shows that the fault run notices a server that loses requests
faults-control:
    cargo build --release --workspace
    target/release/faults --control

# Does what CI does
ci:
    .ci/run
