// Statements, values and transactions.

import * as db from "@wrun/sdk/db";

const SECRET = Uint8Array.of(0, 1, 254, 255);

/** Writes a value of every type and reads them back. */
export function typed() {
  const database = db.open("default");
  database.execute(
    "INSERT INTO typed VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    Number.MAX_SAFE_INTEGER,
    2n ** 63n - 1n,
    0.5,
    "grüße",
    SECRET,
    true,
    new Date("2024-02-29T12:30:15.250Z"),
    db.json({ list: [1, null] }),
    db.decimal("12.50"),
    db.date("2024-02-29"),
    db.time("12:30:15"),
    db.uuid("01234567-89ab-cdef-0123-456789abcdef"),
    null,
  );
  const row = database.queryOne("SELECT * FROM typed");
  return {
    row,
    isDate: row.at instanceof Date,
    areBytes: row.blob_ instanceof Uint8Array,
    dialect: database.dialect,
  };
}

/** Reads rows piece by piece, all of them and only some. */
export function cursor() {
  return db.open("default").transaction((tx) => {
    const numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1200) SELECT n FROM c";
    let total = 0;
    for (const { n } of tx.rows<{ n: number }>(numbers)) total += n;
    // More than may be open at a time: leaving the loop closes them.
    for (let round = 0; round < 20; round += 1) {
      for (const _ of tx.rows(numbers)) break;
    }
    return total;
  });
}

/** Ends a transaction by hand, in each way; `using` rolls the last one back. */
export function manual() {
  const database = db.open("default");
  const committed = database.begin();
  const done = committed.execute("INSERT INTO numbers (n) VALUES ($1), ($2)", 1, 2);
  committed.commit();
  const undone = database.begin();
  undone.execute("DELETE FROM numbers");
  undone.rollback();
  {
    using dropped = database.begin({ isolation: "serializable", timeoutMs: 5_000 });
    dropped.execute("DELETE FROM numbers");
  }
  const steps = database.batch([
    ["UPDATE numbers SET n = n + $1", 10],
    ["SELECT n FROM numbers"],
  ]);
  return { done, steps, none: database.queryOpt("SELECT n FROM numbers WHERE n = $1", 99) ?? "none" };
}

/** Runs work that succeeds at its third try, and work that must not be tried again. */
export function tries() {
  const database = db.open("default");
  let tries = 0;
  database.transaction((tx) => {
    tries += 1;
    tx.execute("UPDATE counters SET n = n + 1 WHERE name = 'tries'");
    if (tries === 3) return;
    (tx as unknown as { retryMayHelp(): void }).retryMayHelp();
    throw new Error("try again");
  });
  let hopeless = 0;
  try {
    database.transaction(() => {
      hopeless += 1;
      throw new Error("no use");
    });
  } catch {
    // Its number of tries tells.
  }
  const { n } = database.queryOne("SELECT n FROM counters WHERE name = 'tries'");
  return { tries, hopeless, n };
}

/** Uses what has ended: errors, and no trap. */
export function ended() {
  const tx = db.open("default").begin({ readOnly: true });
  const rows = tx.rows("SELECT 1 AS one");
  tx.commit();
  const codes = [() => tx.query("SELECT 1"), () => tx.commit(), () => [...rows]].map((use) => {
    try {
      use();
      return "no error";
    } catch (error) {
      return (error as db.DbError).code;
    }
  });
  tx[Symbol.dispose]();
  return codes;
}
