// Messages: sent alone, together and in a transaction; handled, tried again, given up.

import * as db from "@wrun/sdk/db";
import * as queue from "@wrun/sdk/queue";

export function write(params: URLSearchParams) {
  const what = params.get("what") ?? "plain";
  const box = queue.open("letters");
  switch (what) {
    case "many":
      return box.send([{ json: { what }, key: "k" }, { json: { what }, key: "k", delayMs: 1 }]);
    case "headers":
      return box.send({ body: '{"what":"headers"}', contentType: "text/x-letter", headers: { a: "1", b: "2" } });
    case "twice":
      return [1, 2].map(() => box.send({ json: { what }, dedupId: "the same" }));
    case "rolled back":
      try {
        return db.open("default").transaction((tx) => {
          box.sendIn(tx, { json: { what } });
          throw new Error("not after all");
        });
      } catch (error) {
        return String(error);
      }
    case "committed":
      return db.open("default").transaction((tx) => box.sendIn(tx, [{ json: { what } }]));
    default:
      return queue.send("letters", { what });
  }
}

export function letters() {
  return db.open("default").query("SELECT id, attempt, what FROM letters ORDER BY id, attempt");
}

export async function consume(delivery: queue.Delivery) {
  const { what } = delivery.json<{ what: string }>();
  await Promise.resolve();
  if (what === "retry" && !delivery.isLastAttempt) return queue.retry(1);
  if (what === "throw") throw new Error("asked to fail");
  if (what === "dead") return queue.dead("nobody can read it");
  delivery.extend(60_000);
  const { contentType = "none", headers, sentAt, deadline } = delivery;
  db.open("default").transaction((tx) => {
    if (!tx.markProcessed(delivery.id)) return;
    tx.execute(
      "INSERT INTO letters VALUES ($1, $2, $3)",
      delivery.id,
      delivery.attempt,
      db.json({ what, contentType, headers, b: delivery.header("b"), timely: sentAt < deadline }),
    );
  });
}
