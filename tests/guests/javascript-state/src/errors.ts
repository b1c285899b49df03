// Provokes errors and says what they are.

import { db, lock, queue } from "@wrun/sdk";

export function errors() {
  const database = db.open("default");
  return {
    "lock.DeniedError": seen(lock.DeniedError, () => lock.acquire("a", { space: "none" })),
    "lock.InvalidError": seen(lock.InvalidError, () => lock.acquire([])),
    "lock.WouldDeadlockError": seen(lock.WouldDeadlockError, () => {
      using _guard = lock.acquire("a");
      lock.acquire("a");
    }),
    "lock.LostError": seen(lock.LostError, () => {
      const guard = lock.acquire("a");
      guard.release();
      guard.extend(1_000);
    }),
    "db.DeniedError": seen(db.DeniedError, () => db.open("none")),
    "db.InvalidError": seen(db.InvalidError, () => database.query("SELECT $1, $2", 1)),
    "db.RefusedError": seen(db.RefusedError, () => database.execute("INSERT INTO numbers VALUES (1000000)")),
    "db.RowCountError": seen(db.RowCountError, () => database.queryOne("SELECT 1 WHERE 1 = 2")),
    "queue.DeniedError": seen(queue.DeniedError, () => queue.send("none", 1)),
    "queue.InvalidError": seen(queue.InvalidError, () =>
      database.transaction((tx) => queue.open("elsewhere").sendIn(tx, { json: 1 })),
    ),
    "queue.TooLargeError": seen(queue.TooLargeError, () =>
      queue.open("letters").send({ body: "x".repeat(2 << 20) }),
    ),
    // @ts-expect-error: an array is no parameter
    "an array": seen(TypeError, () => database.query("SELECT $1", [1])),
    // @ts-expect-error: neither is undefined
    undefined: seen(TypeError, () => database.query("SELECT $1", undefined)),
    "too big": seen(RangeError, () => database.query("SELECT $1", 2n ** 63n)),
    // @ts-expect-error: the work of a transaction cannot be async
    async: seen(TypeError, () => database.transaction(async () => 1)),
    "no message": seen(TypeError, () => queue.open("letters").send({})),
  };
}

function seen(kind: Function, work: () => unknown) {
  try {
    work();
    return "no error";
  } catch (error) {
    const { name, code, message, retryable } = error as Record<string, unknown>;
    return { right: error instanceof kind && error instanceof Error, name, code, message, retryable };
  }
}
