// Uses every call of the SDK, for tests/it/javascript.rs.

import { errors } from "./errors.ts";
import { exclusive, fenced } from "./locks.ts";
import { consume, letters, write } from "./letters.ts";
import { cursor, ended, manual, tries, typed } from "./statements.ts";
import * as queue from "@wrun/sdk/queue";

const routes: Record<string, (params: URLSearchParams) => unknown> = {
  "/count": exclusive,
  "/cursor": cursor,
  "/ended": ended,
  "/env": () => process.env.GREETING,
  "/errors": errors,
  "/fenced": fenced,
  "/letters": letters,
  "/manual": manual,
  "/throw": () => {
    throw new Error("asked to fail");
  },
  "/tries": tries,
  "/typed": typed,
  "/write": write,
};

declare const process: { env: Record<string, string | undefined> };

export default {
  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const route = routes[url.pathname];
    if (!route) return new Response("Not found\n", { status: 404 });
    const answer = await route(url.searchParams);
    return new Response(JSON.stringify(answer, plain));
  },
};

export const consumer = queue.consumer(consume);

/** JSON has no type for these. */
function plain(_key: string, value: unknown) {
  if (typeof value === "bigint") return `${value}n`;
  return value instanceof Uint8Array ? `bytes ${value.join(" ")}` : value;
}
