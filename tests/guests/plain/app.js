// Hello with WASI alone: for hosts that have nothing else.

addEventListener("fetch", (event) => {
  event.respondWith(new Response("Hello from JavaScript!\n"));
});
