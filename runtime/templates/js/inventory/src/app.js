// A shop that cannot sell more than it has: the requests that it takes. How it sells is in stock.js.

import * as db from "@wrun/sdk/db";
import { buy, left, restock } from "./stock.js";

const STATUS = { "not found": 404, "no such item": 404, "sold out": 409 };

export default {
  fetch(request) {
    const result = answer(route(request.method, new URL(request.url)));
    return Response.json(result, { status: STATUS[result.error] ?? 200 });
  },
};

function answer({ to, item, n }) {
  switch (to) {
    case "stock":
      return left(db.open("default"));
    case "buy":
      return buy(db.open("default"), item);
    case "restock":
      return restock(db.open("default"), item, n);
    default:
      return { error: "not found" };
  }
}

/** Returns what a request asks for. */
export function route(method, { pathname, searchParams }) {
  const [to, item, ...more] = pathname.split("/").slice(1);
  if (more.length > 0) return {};
  if (method === "GET" && to === "stock" && item === undefined) return { to };
  if (method !== "POST" || !item) return {};
  if (to === "buy") return { to, item };
  const n = searchParams.get("n") ?? "";
  return to === "restock" && /^\d{1,9}$/.test(n) ? { to, item, n: Number(n) } : {};
}
