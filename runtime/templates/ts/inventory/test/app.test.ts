import assert from "node:assert/strict";
import test from "node:test";
import { route } from "../src/app.ts";

function find(method: string, path: string) {
  return route(method, new URL(path, "http://localhost"));
}

test("buying is a POST", () => {
  assert.deepEqual(find("POST", "/buy/ticket"), { to: "buy", item: "ticket" });
  assert.deepEqual(find("GET", "/buy/ticket"), { to: "nowhere" });
});

test("restocking needs a number", () => {
  const expected = { to: "restock", item: "ticket", n: 5 };
  assert.deepEqual(find("POST", "/restock/ticket?n=5"), expected);
  for (const query of ["", "?n=-5", "?n=many", "?m=5"]) {
    assert.deepEqual(find("POST", `/restock/ticket${query}`), { to: "nowhere" });
  }
});

test("knows no other path", () => {
  assert.deepEqual(find("GET", "/stock"), { to: "stock" });
  for (const path of ["/", "/stock/ticket", "/buy/ticket/twice", "/bye"]) {
    assert.deepEqual(find("GET", path), { to: "nowhere" });
  }
});
