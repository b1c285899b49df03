import assert from "node:assert/strict";
import test from "node:test";
import * as queue from "../src/queue.js";

const encoder = new TextEncoder();

function delivery(id, more = {}) {
  return {
    id,
    queue: "orders",
    attempt: 1,
    maxAttempts: 2,
    sentAtMs: 1000n,
    deadlineMs: 2000n,
    headers: [["a", "1"], ["a", "2"]],
    body: encoder.encode('{"n":1}'),
    ...more,
  };
}

test("what a handler returns or throws becomes an outcome", async (t) => {
  const log = t.mock.method(console, "error", () => {});
  const { handle } = queue.consumer(async ({ id }) => {
    if (id === "retry") return queue.retry(0.5);
    if (id === "backoff") return queue.retry();
    if (id === "dead") return queue.dead("why");
    if (id === "throw") throw new Error("no");
    return "anything";
  });
  const outcomes = await handle(["retry", "backoff", "dead", "throw", "done"].map((id) => delivery(id)));
  const plain = outcomes.map(({ tag, val }) => [tag, val]);
  assert.deepEqual(plain, [
    ["retry", 1n],
    ["retry", undefined],
    ["dead", "why"],
    ["retry", undefined],
    ["ack", undefined],
  ]);
  assert.equal(log.mock.calls[0].arguments[0], "failed to handle message throw:");
});

test("deliveries are handled one after the other", async () => {
  const seen = [];
  const { handle } = queue.consumer(async ({ id }) => {
    seen.push(`begin ${id}`);
    await Promise.resolve();
    seen.push(`end ${id}`);
  });
  await handle([delivery("1"), delivery("2")]);
  assert.deepEqual(seen, ["begin 1", "end 1", "begin 2", "end 2"]);
});

test("a delivery reads its content, headers and times", async () => {
  const { handle } = queue.consumer((it) => {
    assert.deepEqual(it.json(), { n: 1 });
    assert.equal(it.text(), '{"n":1}');
    assert.equal(it.header("a"), "1");
    assert.equal(it.header("b"), undefined);
    assert.deepEqual([it.sentAt, it.deadline], [new Date(1000), new Date(2000)]);
    assert.equal(it.isLastAttempt, it.id === "2");
  });
  const outcomes = await handle([delivery("1"), delivery("2", { attempt: 2 })]);
  assert.deepEqual(outcomes.map(({ tag }) => tag), ["ack", "ack"]);
});

test("outside of wrun the modules load and calls say why they fail", () => {
  assert.throws(() => queue.open("orders"), /only in wrun/);
});
