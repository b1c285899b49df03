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
    cargo fmt --all --manifest-path guest-sdk/Cargo.toml

# Builds the documentation as a book into target/book; needs `cargo install mdbook --locked`
docs:
    mdbook build docs

# Replaces, kills, stops and starves workers under load and accounts for every request
faults rounds="20":
    cargo build --release --workspace
    target/release/faults {{rounds}}

# Shows that the fault run notices a server that loses requests
faults-control:
    cargo build --release --workspace
    target/release/faults --control

# Measures wrun beside native hyper, node:cluster and `wasmtime serve`, where they are installed
bench *args:
    cargo build --release --workspace
    target/release/bench {{args}}

# Takes the CPU time of one request apart; needs perf and wrk
profile *seconds:
    cargo build --release
    tests/profile.sh {{seconds}}

# Measures locks, databases and queues beside Redis and PostgreSQL, where they are installed
bench-state *args:
    cargo build --release --workspace
    target/release/bench_state {{args}}

# Feeds what wrun is given by others from a fuzzer, for so many seconds for each kind
fuzz seconds="60" *targets:
    tests/fuzz/run {{seconds}} {{targets}}

# Sells and charges while workers and the state process are killed, and checks the books
state-faults rounds="1":
    cargo build --release --workspace
    target/release/state_faults {{rounds}}

# Has three hosts in network namespaces share servers, cuts one off, kills another, and checks the books; needs root
hosts:
    cargo build --release --workspace
    target/release/hosts

# Runs every attack on the sandbox that there is a test for, and prints the table: attack, expected, held
attacks:
    cargo run --release --package wrun-tests --bin attacks

# Sends four times what the server can answer, and 500 slow clients; needs wrk, h2load and slowhttptest
overload:
    cargo build --release --workspace
    target/release/overload

# Sends many requests of which some trap and some are given up, and shows that descriptors and memory stay level
soak requests="200000":
    cargo build --release --workspace
    target/release/soak {{requests}}

# Does what a newcomer does, in each language or in those named: new, build, serve, edit, test
first-hour *languages:
    cargo build --release
    tests/first-hour.sh {{languages}}

# Does what CI does
ci:
    .ci/run
