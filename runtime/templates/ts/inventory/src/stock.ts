// The stock: what is left of each item, and who bought one.

import type { Database } from "@wrun/sdk/db";

/** Why something was not done. */
export type Refusal = { error: "no such item" | "sold out" };

/**
 * Sells one. Reading, checking and writing are one transaction, so no buyer comes between them, on whatever worker; it runs
 * again by itself where another one was in its way.
 */
export function buy(database: Database, item: string): { order: number; left: number } | Refusal {
  return database.transaction((tx) => {
    const sql = "SELECT remaining FROM stock WHERE item = $1 FOR UPDATE";
    const stock = tx.queryOpt<{ remaining: number }>(sql, item);
    if (!stock) return { error: "no such item" };
    if (stock.remaining === 0) return { error: "sold out" };
    tx.execute("UPDATE stock SET remaining = remaining - 1 WHERE item = $1", item);
    const insert = "INSERT INTO orders (item) VALUES ($1) RETURNING id";
    const { id } = tx.queryOne<{ id: number }>(insert, item);
    return { order: id, left: stock.remaining - 1 };
  });
}

/** Returns what is left of each item. */
export function left(database: Database): Record<string, number> {
  const rows = database.query<{ item: string; remaining: number }>("SELECT item, remaining FROM stock ORDER BY item");
  return Object.fromEntries(rows.map(({ item, remaining }) => [item, remaining]));
}

/** Adds `n` and returns what is left then. */
export function restock(database: Database, item: string, n: number): { left: number } | Refusal {
  const sql = 'UPDATE stock SET remaining = remaining + $2 WHERE item = $1 RETURNING remaining AS "left"';
  return database.queryOpt<{ left: number }>(sql, item, n) ?? { error: "no such item" };
}
