// The stock: what is left of each item, and who bought one.

/**
 * Sells one. Reading, checking and writing are one transaction, so no buyer comes between them, on whatever worker; it runs
 * again by itself where another one was in its way.
 */
export function buy(database, item) {
  return database.transaction((tx) => {
    const stock = tx.queryOpt("SELECT remaining FROM stock WHERE item = $1 FOR UPDATE", item);
    if (!stock) return { error: "no such item" };
    if (stock.remaining === 0) return { error: "sold out" };
    tx.execute("UPDATE stock SET remaining = remaining - 1 WHERE item = $1", item);
    const { id } = tx.queryOne("INSERT INTO orders (item) VALUES ($1) RETURNING id", item);
    return { order: id, left: stock.remaining - 1 };
  });
}

/** Returns what is left of each item. */
export function left(database) {
  const rows = database.query("SELECT item, remaining FROM stock ORDER BY item");
  return Object.fromEntries(rows.map(({ item, remaining }) => [item, remaining]));
}

/** Adds `n` and returns what is left then. */
export function restock(database, item, n) {
  const sql = 'UPDATE stock SET remaining = remaining + $2 WHERE item = $1 RETURNING remaining AS "left"';
  return database.queryOpt(sql, item, n) ?? { error: "no such item" };
}
