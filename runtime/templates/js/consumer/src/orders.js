// Orders, from being placed to being done.

import * as db from "@wrun/sdk/db";
import * as queue from "@wrun/sdk/queue";

/** Records an order and sends it to the queue, in one transaction: either both happen or none. */
export function place(database, details) {
  const orders = queue.open("orders");
  return database.transaction((tx) => {
    const sql = "INSERT INTO orders (details, state) VALUES ($1, 'queued') RETURNING id";
    const { id } = tx.queryOne(sql, db.json(details));
    orders.sendIn(tx, { json: id });
    return id;
  });
}

/** Does what there is to do for an order. A message may come twice; the mark makes its effect happen once. */
export function finish(database, delivery) {
  const id = delivery.json();
  database.transaction((tx) => {
    if (tx.markProcessed(delivery.id)) {
      tx.execute("UPDATE orders SET state = 'done' WHERE id = $1", id);
    }
  });
}

/** Returns an order's state, if there is such an order. */
export function state(database, id) {
  return database.queryOpt("SELECT state FROM orders WHERE id = $1", id)?.state;
}
