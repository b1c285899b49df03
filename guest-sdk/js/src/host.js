// What the host offers, as wit/ describes it. In Node.js, where tests run, host.node.js takes its place.

export { getEnvironment } from "wasi:cli/environment@0.2.10";
export { subscribeDuration } from "wasi:clocks/monotonic-clock@0.2.10";
export { Database } from "wrun:db/db@0.1.0";
export { Space } from "wrun:lock/lock@0.1.0";
export { Queue, extend } from "wrun:queue/queue@0.1.0";
