// Greets whoever asks.

export default {
  fetch(request: Request): Response {
    return respond(request.method, new URL(request.url).pathname);
  },
};

function respond(method: string, path: string): Response {
  if (method !== "GET") return notFound();
  if (path === "/") return new Response("Hello from {{name}}!\n");
  const [, person] = path.match(/^\/hello\/([^/]+)$/) ?? [];
  return person ? new Response(`Hello, ${person}!\n`) : notFound();
}

function notFound(): Response {
  return new Response("not found\n", { status: 404 });
}
