// Takes orders over HTTP at once, and handles them later from a queue.

import * as db from "@wrun/sdk/db";
import * as queue from "@wrun/sdk/queue";
import { finish, place, state } from "./orders.js";

export default {
  async fetch(request) {
    const { to, id } = routeOf(request.method, new URL(request.url).pathname);
    if (to === "place") {
      const details = await read(request);
      if (details === undefined) return answer(400, { error: "the body is not JSON" });
      return answer(202, { id: place(db.open("default"), details) });
    }
    if (to === "look") {
      const found = state(db.open("default"), id);
      return found ? answer(200, { id, state: found }) : answer(404, { error: "no such order" });
    }
    return answer(404, { error: "not found" });
  },
};

export const consumer = queue.consumer((delivery) => finish(db.open("default"), delivery));

/** Returns what a request asks for. */
export function routeOf(method, path) {
  if (method === "POST" && path === "/orders") return { to: "place" };
  const [, id] = path.match(/^\/orders\/(\d{1,15})$/) ?? [];
  return method === "GET" && id ? { to: "look", id: Number(id) } : {};
}

/** Returns the value in a request's body, or nothing if that is not JSON. */
async function read(request) {
  try {
    return await request.json();
  } catch {
    return undefined;
  }
}

function answer(status, value) {
  return Response.json(value, { status });
}
