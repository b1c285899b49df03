// `process.env`: jco's stand-in for `process` reads it from `globalThis.__env__`.

import { getEnvironment } from "#host";

let env;
let running = false;

Object.defineProperty(globalThis, "__env__", {
  configurable: true,
  // While the component is built there is no host to ask.
  get: () => (running ? (env ??= Object.fromEntries(getEnvironment())) : undefined),
});

/** Says that the component runs, and is not being built. */
export function run() {
  running = true;
}
