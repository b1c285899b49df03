// The smallest handler: `GET /` answers a greeting, everything else 404.

export default {
  fetch({ method, url }) {
    const { pathname } = new URL(url);
    const found = pathname === "/" && ["GET", "HEAD"].includes(method);
    return new Response(found ? "Hello from JavaScript!\n" : "Not found\n", {
      status: found ? 200 : 404,
    });
  },
};
