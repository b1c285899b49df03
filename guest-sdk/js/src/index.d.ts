/**
 * What a guest of wrun needs: shared state and entry points.
 *
 * A guest is a component. For each request, and for each batch of messages, it runs in a fresh instance whose memory ends
 * with it. What is to outlast that lives behind a lock (`lock`), in a database (`db`) or in a queue (`queue`); the server's
 * `wrun.toml` grants them by their labels.
 *
 * ```js
 * import { db } from "@wrun/sdk";
 *
 * export default {
 *   fetch(request) {
 *     const { n } = db.open("default").transaction((tx) => {
 *       tx.execute("UPDATE counters SET n = n + 1 WHERE name = $1", "visits");
 *       return tx.queryOne("SELECT n FROM counters WHERE name = $1", "visits");
 *     });
 *     return new Response(`visit ${n}\n`);
 *   },
 * };
 * ```
 *
 * Calls to the host return values, not promises: while one waits, other instances run. In Node.js the modules load, so
 * that a guest's own logic can be tested there, but every call to the host throws.
 *
 * @module
 */

export * as db from "./db.js";
export * as http from "./http.js";
export * as lock from "./lock.js";
export * as queue from "./queue.js";
