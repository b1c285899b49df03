// A shop that cannot sell more than it has: the requests that it takes. How it sells is in stock.ts.

import * as db from "@wrun/sdk/db";
import { buy, left, restock } from "./stock.ts";

const STATUS: Record<string, number> = { "not found": 404, "no such item": 404, "sold out": 409 };

export default {
  fetch(request: Request): Response {
    const result = answer(route(request.method, new URL(request.url)));
    return Response.json(result, { status: STATUS[String(result.error)] ?? 200 });
  },
};

function answer(route: Route): Record<string, unknown> {
  switch (route.to) {
    case "stock":
      return left(db.open("default"));
    case "buy":
      return buy(db.open("default"), route.item);
    case "restock":
      return restock(db.open("default"), route.item, route.n);
    case "nowhere":
      return { error: "not found" };
  }
}

/** What a request asks for. */
type Route =
  | { to: "stock" }
  | { to: "buy"; item: string }
  | { to: "restock"; item: string; n: number }
  | { to: "nowhere" };

export function route(method: string, { pathname, searchParams }: URL): Route {
  const [to, item, ...more] = pathname.split("/").slice(1);
  if (more.length > 0) return { to: "nowhere" };
  if (method === "GET" && to === "stock" && item === undefined) return { to };
  if (method !== "POST" || !item) return { to: "nowhere" };
  if (to === "buy") return { to, item };
  const n = searchParams.get("n") ?? "";
  return to === "restock" && /^\d{1,9}$/.test(n) ? { to, item, n: Number(n) } : { to: "nowhere" };
}
