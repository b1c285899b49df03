import assert from "node:assert/strict";
import test from "node:test";
import { route } from "../src/app.js";

function find(method, path) {
  return route(method, new URL(path, "http://localhost"));
}

test("buying is a POST", () => {
  assert.deepEqual(find("POST", "/buy/ticket"), { to: "buy", item: "ticket" });
  assert.deepEqual(find("GET", "/buy/ticket"), {});
});

test("restocking needs a number", () => {
  const expected = { to: "restock", item: "ticket", n: 5 };
  assert.deepEqual(find("POST", "/restock/ticket?n=5"), expected);
  for (const query of ["", "?n=-5", "?n=many", "?m=5"]) {
    assert.deepEqual(find("POST", `/restock/ticket${query}`), {});
  }
});

test("knows no other path", () => {
  assert.deepEqual(find("GET", "/stock"), { to: "stock" });
  for (const path of ["/", "/stock/ticket", "/buy/ticket/twice", "/bye"]) {
    assert.deepEqual(find("GET", path), {});
  }
});
