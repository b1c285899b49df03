// Orders, from being placed to being done.

import * as db from "@wrun/sdk/db";
import * as queue from "@wrun/sdk/queue";

/** Records an order and sends it to the queue, in one transaction: either both happen or none. */
export function place(database: db.Database, details: unknown): number {
  const orders = queue.open("orders");
  return database.transaction((tx) => {
    const sql = "INSERT INTO orders (details, state) VALUES ($1, 'queued') RETURNING id";
    const { id } = tx.queryOne<{ id: number }>(sql, db.json(details));
    orders.sendIn(tx, { json: id });
    return id;
  });
}

/** Does what there is to do for an order. A message may come twice; the mark makes its effect happen once. */
export function finish(database: db.Database, delivery: queue.Delivery): void {
  const id = delivery.json<number>();
  database.transaction((tx) => {
    if (tx.markProcessed(delivery.id)) {
      tx.execute("UPDATE orders SET state = 'done' WHERE id = $1", id);
    }
  });
}

/** Returns an order's state, if there is such an order. */
export function state(database: db.Database, id: number): "queued" | "done" | undefined {
  const sql = "SELECT state FROM orders WHERE id = $1";
  return database.queryOpt<{ state: "queued" | "done" }>(sql, id)?.state;
}
