// HTTP: requests and responses are those of the web, `Request` and `Response`. The types and the documentation are in
// http.d.ts.

import { run } from "./environment.js";

export function serve(app) {
  const handle = typeof app === "function" ? app : app?.fetch?.bind(app);
  if (!handle) {
    throw new TypeError("the default export is neither a function nor an object with a `fetch` method");
  }
  addEventListener("fetch", (event) => event.respondWith(answer(handle, event.request)));
}

export async function answer(handle, request) {
  run();
  try {
    return await handle(request);
  } catch (error) {
    console.error("failed to answer:", describe(error));
    return new Response("Internal error\n", { status: 500 });
  }
}

/** Returns what belongs in the log: the engine's stacks do not begin with the message. */
export function describe(error) {
  return error?.stack ? `${error}\n${error.stack}` : String(error);
}
