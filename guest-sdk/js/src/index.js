export * as db from "./db.js";
export * as http from "./http.js";
export * as lock from "./lock.js";
export * as queue from "./queue.js";
