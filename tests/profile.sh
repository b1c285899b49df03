#!/usr/bin/env bash
# Takes the CPU time of one request of examples/hello apart: samples one worker under load, and sorts the samples by what
# the function belongs to. Prints Markdown. Needs perf and wrk: apt-get install linux-perf wrk
#
# Usage: tests/profile.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-10}
wrun=target/release/wrun
for tool in perf wrk; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install linux-perf wrk" >&2; exit 69; }
done

folder=$(mktemp -d)
component=$("$wrun" build examples/hello)
"$wrun" serve "$component" --workers 1 --addr 127.0.0.1:0 --state "$folder/state" 2>"$folder/log" &
server=$!
end() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT
for _ in $(seq 300); do
    if grep -q 'worker ready' "$folder/log"; then break; fi
    sleep 0.1
done
url=$(grep -o 'http://[^ ]*' "$folder/log" | head -n 1)
worker=$(pgrep -P "$server")

cpu_ns() { cut -d ' ' -f 1 "/proc/$worker/schedstat"; }
wrk -t 1 -c 16 -d 1s "$url" >/dev/null
before=$(cpu_ns)
wrk -t 1 -c 16 -d "$((seconds + 2))s" "$url" >"$folder/wrk" &
load=$!
sleep 1
perf record -q -e cpu-clock -F 4000 -p "$worker" -o "$folder/perf" -- sleep "$seconds" >/dev/null 2>&1
wait "$load"
requests=$(awk '/requests in/ { print $1 }' "$folder/wrk")
each=$(awk -v ns="$(($(cpu_ns) - before))" -v n="$requests" 'BEGIN { printf "%.2f", ns / n / 1000 }')

perf report -i "$folder/perf" --no-children --sort dso,sym -F overhead,dso,sym 2>/dev/null | awk -v each="$each" '
    !/^ *[0-9.]+%/ { next }
    { share = $1 + 0; object = $2; symbol = substr($0, index($0, "] ") + 2) }
    object ~ /kernel|vdso/ || symbol ~ /^(__GI___|__libc_|epoll_wait|recv|writev|clock_gettime)/ { add("the kernel, and the way to it"); next }
    object ~ /cwasm/ { add("the guest"); next }
    symbol ~ /mem(move|set|cmp|cpy)/ { add("copying and clearing memory"); next }
    symbol ~ /^_?mi_|malloc|__rust_|alloc::raw_vec/ { add("the allocator of the host"); next }
    symbol ~ /instantiate|Instantiator|InstancePre|vm::instance|allocator::pooling|OwnedImports|registry|lookup_vmdef|func_loc|component::matching|bforest|store_invariant_func|FuncKey|[Dd]rop_in_place.*[Ss]tore|memory_pool|MemoryImage/ { add("wasmtime: making an instance, and taking it down"); next }
    symbol ~ /wasmtime|wrun::(host|engine)|fiber/ { add("wasmtime and wrun: calls between host and guest"); next }
    symbol ~ /hyper|http|tokio|mio::|wrun::worker|bytes::|futures/ { add("hyper, tokio and the worker: HTTP"); next }
    { add("other") }
    function add(part) { sum[part] += share; all += share }
    END {
        print "| part | of the CPU time | µs |"
        print "|---|---:|---:|"
        for (part in sum) printf "%s | %.0f %% | %.1f |\n", "| " part, 100 * sum[part] / all, each * sum[part] / all | "sort -t\"|\" -k4 -rn"
        close("sort -t\"|\" -k4 -rn")
        printf "| all | 100 %% | %.1f |\n", each
    }'
