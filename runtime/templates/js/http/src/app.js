// Greets whoever asks.

export default {
  fetch(request) {
    return respond(request.method, new URL(request.url).pathname);
  },
};

function respond(method, path) {
  if (method !== "GET") return notFound();
  if (path === "/") return new Response("Hello from {{name}}!\n");
  const [, person] = path.match(/^\/hello\/([^/]+)$/) ?? [];
  return person ? new Response(`Hello, ${person}!\n`) : notFound();
}

function notFound() {
  return new Response("not found\n", { status: 404 });
}
