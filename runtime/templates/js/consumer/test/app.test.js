import assert from "node:assert/strict";
import test from "node:test";
import { routeOf } from "../src/app.js";

test("orders are posted and looked at", () => {
  assert.deepEqual(routeOf("POST", "/orders"), { to: "place" });
  assert.deepEqual(routeOf("GET", "/orders/7"), { to: "look", id: 7 });
});

test("an order has a number", () => {
  for (const path of ["/orders", "/orders/", "/orders/x", "/orders/7/8"]) {
    assert.deepEqual(routeOf("GET", path), {});
  }
});
