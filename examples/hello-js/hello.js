// The smallest handler: `GET /` answers a greeting, everything else 404.

addEventListener("fetch", (event) => event.respondWith(handle(event.request)));

async function handle(request) {
  const { pathname } = new URL(request.url);
  const found = pathname === "/" && ["GET", "HEAD"].includes(request.method);
  return new Response(found ? "Hello from JavaScript!\n" : "Not found\n", {
    status: found ? 200 : 404,
    headers: { "content-type": "text/plain" },
  });
}
