import assert from "node:assert/strict";
import test from "node:test";
import { date, decimal, json, time, toRow, toValues, uuid } from "../src/db/value.js";

function back(value, name = "a") {
  return toRow([{ name }], [value])[name];
}

test("values become parameters", () => {
  const bytes = Uint8Array.of(1, 2, 3);
  const params = [true, 1, 0.5, NaN, 2 ** 60, 7n, "x", null, bytes, bytes.buffer, bytes.subarray(1), new Date(-1)];
  assert.deepEqual(toValues(params), [
    { tag: "boolean", val: true },
    { tag: "integer", val: 1n },
    { tag: "real", val: 0.5 },
    { tag: "real", val: NaN },
    { tag: "real", val: 2 ** 60 },
    { tag: "integer", val: 7n },
    { tag: "text", val: "x" },
    { tag: "null" },
    { tag: "blob", val: bytes },
    { tag: "blob", val: bytes },
    { tag: "blob", val: Uint8Array.of(2, 3) },
    { tag: "timestamp-us", val: -1000n },
  ]);
});

test("types that JavaScript lacks are named", () => {
  const params = [json({ a: [1] }), decimal("1.50"), date("2024-02-29"), time("10:00:00")];
  assert.deepEqual(toValues(params), [
    { tag: "json", val: '{"a":[1]}' },
    { tag: "decimal", val: "1.50" },
    { tag: "date", val: "2024-02-29" },
    { tag: "time", val: "10:00:00" },
  ]);
});

test("UUIDs go through two halves and come back", () => {
  const text = "00000000-0000-0001-fedc-ba9876543210";
  const [value] = toValues([uuid(text)]);
  assert.deepEqual(value, { tag: "uuid", val: [1n, 0xfedcba9876543210n] });
  assert.equal(back(value), text);
  assert.throws(() => uuid("no uuid"), TypeError);
});

test("parameters that mean nothing are refused, and their place is named", () => {
  for (const param of [undefined, [1], {}, () => 1, Symbol("s")]) {
    assert.throws(() => toValues([1, param]), { name: "TypeError", message: /^parameter \$2 is / });
  }
  assert.throws(() => toValues([2n ** 63n]), RangeError);
});

test("whole numbers are numbers as long as they are exact", () => {
  const max = BigInt(Number.MAX_SAFE_INTEGER);
  for (const [val, expected] of [[0n, 0], [max, Number(max)], [-max, Number(-max)], [max + 1n, max + 1n]]) {
    assert.equal(back({ tag: "integer", val }), expected);
  }
});

test("columns become values", () => {
  assert.equal(back({ tag: "null" }), null);
  assert.deepEqual(back({ tag: "timestamp-us", val: 1_500_000n }), new Date(1500));
  assert.deepEqual(back({ tag: "json", val: '{"a":1}' }), { a: 1 });
  assert.equal(back({ tag: "other", val: ["interval", "1 day"] }), "1 day");
  assert.equal(back({ tag: "decimal", val: "1.50" }), "1.50");
  assert.equal(back({ tag: "text", val: "x" }, "__proto__"), "x");
});
