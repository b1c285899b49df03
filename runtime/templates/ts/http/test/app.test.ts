import assert from "node:assert/strict";
import test from "node:test";
import app from "../src/app.ts";

function get(path: string) {
  return app.fetch(new Request(`http://localhost${path}`));
}

test("greets by name", async () => {
  const response = get("/hello/Ada");
  assert.equal(response.status, 200);
  assert.equal(await response.text(), "Hello, Ada!\n");
});

test("knows no other path", () => {
  for (const path of ["/hello", "/hello/Ada/twice", "/bye"]) {
    assert.equal(get(path).status, 404);
  }
});
