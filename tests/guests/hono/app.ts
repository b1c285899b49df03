// A Hono application: routes, a path parameter, JSON, middleware, a streamed answer and an error page.

import { Hono } from "hono";
import { fire } from "hono/service-worker";
import { stream } from "hono/streaming";

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
app.get("/error", () => {
  throw new Error("asked to fail");
});
app.onError((error, context) => context.text(`caught: ${error.message}\n`, 500));

fire(app);
