// Takes orders over HTTP at once, and handles them later from a queue.

import * as db from "@wrun/sdk/db";
import * as queue from "@wrun/sdk/queue";
import { finish, place, state } from "./orders.ts";

export default {
  async fetch(request: Request): Promise<Response> {
    const route = routeOf(request.method, new URL(request.url).pathname);
    if (route.to === "place") {
      const details = await read(request);
      if (details === undefined) return answer(400, { error: "the body is not JSON" });
      return answer(202, { id: place(db.open("default"), details) });
    }
    if (route.to === "look") {
      const found = state(db.open("default"), route.id);
      return found ? answer(200, { id: route.id, state: found }) : answer(404, { error: "no such order" });
    }
    return answer(404, { error: "not found" });
  },
};

export const consumer = queue.consumer((delivery) => finish(db.open("default"), delivery));

/** What a request asks for. */
type Route = { to: "place" } | { to: "look"; id: number } | { to: "nowhere" };

export function routeOf(method: string, path: string): Route {
  if (method === "POST" && path === "/orders") return { to: "place" };
  const [, id] = path.match(/^\/orders\/(\d{1,15})$/) ?? [];
  return method === "GET" && id ? { to: "look", id: Number(id) } : { to: "nowhere" };
}

/** Returns the value in a request's body, or nothing if that is not JSON. */
async function read(request: Request): Promise<unknown> {
  try {
    return await request.json();
  } catch {
    return undefined;
  }
}

function answer(status: number, value: object): Response {
  return Response.json(value, { status });
}
