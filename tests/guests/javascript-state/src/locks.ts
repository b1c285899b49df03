// Work under locks.

import * as db from "@wrun/sdk/db";
import * as lock from "@wrun/sdk/lock";

/** Counts up in two steps, under a lock unless the counter is called `unlocked`. */
export async function exclusive(params: URLSearchParams) {
  const name = params.get("name") ?? "locked";
  const step = async () => {
    const database = db.open("default");
    const { n } = database.queryOne("SELECT n FROM counters WHERE name = $1", name);
    await new Promise((wake) => setTimeout(wake, 2));
    database.execute("UPDATE counters SET n = $1 WHERE name = $2", n + 1, name);
    return n + 1;
  };
  return name === "unlocked" ? step() : lock.withLock(name, step, { space: "orders" });
}

/** Counts up in a transaction that needs a lock, which is lost before the commit if that is wanted. */
export function fenced(params: URLSearchParams) {
  using guard = lock.acquire(["a", "b"], { waitMs: 30_000 });
  try {
    const { n } = db.open("default").transaction(
      (tx) => {
        tx.execute("UPDATE counters SET n = n + 1 WHERE name = 'fenced'");
        if (params.has("lose")) guard.release();
        return tx.queryOne<{ n: number }>("SELECT n FROM counters WHERE name = 'fenced'");
      },
      { fences: [guard] },
    );
    guard.extend(60_000);
    return { n, token: guard.token, held: guard.isHeld() };
  } catch (error) {
    if (!(error instanceof db.LostFenceError)) throw error;
    return { code: error.code, held: guard.isHeld() };
  }
}
