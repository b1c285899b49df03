#!/usr/bin/env bash
# What a newcomer does in the first hour, in each language: new, build, serve, buy, edit, look, test.
#
#   tests/first-hour.sh [rust] [js] [ts] [python]
#
# WRUN names the binary; without it the one in target/release is taken.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
wrun=$(realpath "${WRUN:-$top/target/release/wrun}")
languages=("$@")
[ ${#languages[@]} -gt 0 ] || languages=(rust js ts python)
scratch=$(mktemp -d)
server=

finish() {
    local code=$?
    trap - EXIT
    if [ -n "$server" ]; then kill -9 "$server" 2>/dev/null || true; fi
    if [ $code != 0 ]; then tail -n 40 "$scratch"/*.log >&2 || true; fi
    rm -rf "$scratch"
    exit $code
}
trap finish EXIT

fail() {
    echo "first hour: $*" >&2
    exit 1
}

# Runs `wrun $2 …` in the background, its output in the log $1, and waits for its address.
start() {
    local log=$1 deadline=$((SECONDS + 180))
    shift
    : >"$log"
    "$wrun" "$@" --addr 127.0.0.1:0 >"$log" 2>&1 &
    server=$!
    until url=$(grep -om1 'http://127\.0\.0\.1:[0-9]*' "$log"); do
        kill -0 "$server" 2>/dev/null || fail "wrun $1 ended before it was ready"
        [ $SECONDS -lt $deadline ] || fail "wrun $1 does not become ready"
        sleep 0.2
    done
}

stop() {
    kill -TERM "$server"
    wait "$server" || fail 'the server did not end well'
    server=
}

# Waits until a buyer is told $1.
until_told() {
    local deadline=$((SECONDS + 300)) told=
    until [[ $told == *"$1"* ]]; do
        [ $SECONDS -lt $deadline ] || fail "a buyer is still told '$told', not '$1'"
        sleep 0.5
        told=$(curl -s --max-time 20 -X POST "$url/buy/ticket" || true)
    done
}

# 150 buyers, 16 at a time, for 100 tickets.
sell() {
    local answers
    answers=$(seq 150 | xargs -P 16 -I{} curl -s --max-time 60 -o /dev/null -w '%{http_code}\n' -X POST "$url/buy/ticket" | sort | uniq -c | xargs)
    [ "$answers" = '100 200 50 409' ] || fail "150 buyers of 100 tickets were answered: $answers"
    curl -sf "$url/stock" | grep -q '"ticket": *0' || fail 'tickets are left'
}

for language in "${languages[@]}"; do
    began=$SECONDS
    cd "$scratch"
    "$wrun" new "shop-$language" --lang "$language" --template inventory
    cd "shop-$language"
    case $language in
        rust) sources=(src/*) try=(cargo test --quiet) ;;
        js | ts) sources=(src/*) try=(npm test) ;;
        python) sources=(app.py) try=(env PYTHONPATH=vendor python3 -m unittest) ;;
        *) fail "there is no language $language" ;;
    esac

    "$wrun" build
    start "$scratch/$language-serve.log" serve .
    first=$((SECONDS - began))
    sell
    stop

    start "$scratch/$language-dev.log" dev .
    until_told 'sold out'
    sed -i 's/sold out/all gone/' "${sources[@]}"
    until_told 'all gone'
    sed -i 's/all gone/sold out/' "${sources[@]}"
    until_told 'sold out'
    stop

    "${try[@]}"
    echo "first hour: $language: first answer after $first s, all after $((SECONDS - began)) s"
done
