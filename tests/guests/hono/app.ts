// A Hono application: routes, a path parameter, JSON, middleware, a streamed answer, an error page, and shared state.

import { Hono } from "hono";
import { stream } from "hono/streaming";
import * as db from "@wrun/sdk/db";

const app = new Hono();

app.use("*", async (context, next) => {
  await next();
  context.header("x-middleware", "ran");
});

app.get("/", (context) => context.text("Hello from Hono!\n"));
app.get("/users/:name", (context) => context.json({ name: context.req.param("name") }));
app.post("/echo", async (context) => context.text(await context.req.text()));
app.get("/stream", (context) =>
  stream(context, async (out) => {
    for (const piece of ["one\n", "two\n", "three\n"]) {
      await out.write(piece);
    }
  }),
);
app.get("/visits", (context) => {
  const visits = db.open("default").transaction((tx) => {
    tx.execute("CREATE TABLE IF NOT EXISTS visits (at TIMESTAMP)");
    tx.execute("INSERT INTO visits VALUES ($1)", new Date());
    return tx.queryOne("SELECT count(*) AS n FROM visits");
  });
  return context.json(visits);
});
app.get("/error", () => {
  throw new Error("asked to fail");
});
app.onError((error, context) => context.text(`caught: ${error.message}\n`, 500));

export default app;
