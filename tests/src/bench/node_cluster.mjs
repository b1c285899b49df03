// What `just bench` compares with as node:cluster: the same answers by one process for each core. A worker that dies is
// replaced; SIGHUP replaces all of them, new ones first, as PM2 does.
//
// Usage: node node_cluster.mjs WORKERS

import cluster from "node:cluster";
import { createServer } from "node:http";
import { once } from "node:events";

const KILL_AFTER_MS = 5000;
const PIECE = Buffer.from(Array.from({ length: 64 * 1024 }, (_, at) => at % 251));

function toil(rounds) {
  let state = 1;
  for (let round = 0; round < rounds; round++) {
    state = Math.imul(state ^ round, 0x9e3779b1);
    state = (state << 13) | (state >>> 19);
  }
  return state >>> 0;
}

function spin(ms) {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

async function stream(response, bytes) {
  response.writeHead(200, { "content-type": "application/octet-stream" });
  for (let left = bytes; left > 0; left -= PIECE.length) {
    const piece = left < PIECE.length ? PIECE.subarray(0, left) : PIECE;
    if (!response.write(piece)) await once(response, "drain");
  }
  response.end();
}

function text(response, body) {
  response.writeHead(200, { "content-type": "text/plain", "content-length": Buffer.byteLength(body) });
  response.end(body);
}

function answer(request, response) {
  if (request.url === "/") return text(response, `Hello from node ${version}\n`);
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  const number = (name) => Number(searchParams.get(name));
  switch (pathname) {
    case "/echo":
      response.writeHead(200, { "content-type": "application/octet-stream" });
      return request.pipe(response);
    case "/stream":
      return stream(response, number("bytes"));
    case "/toil":
      return text(response, `${toil(number("rounds"))}\n`);
    case "/spin":
      spin(number("ms"));
      return text(response, "spun\n");
    default:
      response.writeHead(404).end();
  }
}

// The port stays the same when there is no worker for a moment.
async function choosePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  await once(probe.close(), "close");
  return port;
}

async function start(port) {
  await once(cluster.fork({ PORT: port }), "listening");
}

async function deploy(port) {
  for (const old of Object.values(cluster.workers)) {
    await start(port);
    const gone = once(old, "exit");
    old.disconnect();
    const timer = setTimeout(() => old.kill("SIGKILL"), KILL_AFTER_MS);
    await gone;
    clearTimeout(timer);
  }
  console.log("deployed");
}

async function supervise(workers) {
  const port = await choosePort();
  cluster.on("exit", (worker) => worker.exitedAfterDisconnect || start(port));
  process.on("SIGHUP", () => deploy(port));
  await Promise.all(Array.from({ length: workers }, () => start(port)));
  console.log(`listening on http://127.0.0.1:${port}/`);
}

if (cluster.isPrimary) {
  await supervise(Number(process.argv[2]));
} else {
  createServer(answer).listen(process.env.PORT, "127.0.0.1");
}
