// Queues: messages for later, handled at least once. The types and the documentation are in queue.d.ts.

import { Queue as HostQueue, extend } from "#host";
import { run } from "./environment.js";
import { WrunError, call } from "./error.js";
import { describe } from "./http.js";
import { RAW } from "./raw.js";

export function send(label, value) {
  return open(label).send({ json: value });
}

export function open(label) {
  return new Queue(host(() => HostQueue.open(label)));
}

export class Queue {
  #raw;

  constructor(raw) {
    this.#raw = raw;
  }

  send(messages) {
    return sendAll(messages, (list) => host(() => this.#raw.send(list)));
  }

  sendIn(tx, messages) {
    const raw = tx[RAW];
    try {
      return sendAll(messages, (list) => host(() => this.#raw.sendIn(raw, list)));
    } catch (error) {
      if (error.retryable) tx.retryMayHelp();
      throw error;
    }
  }
}

function sendAll(messages, send) {
  if (Array.isArray(messages)) return send(messages.map(toMessage));
  const [id] = send([toMessage(messages)]);
  return id;
}

function toMessage(message) {
  const { contentType, headers = [], key, dedupId, delayMs } = message;
  const isJson = message.json !== undefined;
  if (isJson === (message.body !== undefined)) {
    throw new TypeError("a message has either `json` or `body`: to send a value as JSON, send({ json: value })");
  }
  return {
    body: toBytes(isJson ? JSON.stringify(message.json) : message.body),
    contentType: contentType ?? (isJson ? "application/json" : undefined),
    headers: Array.isArray(headers) ? headers : Object.entries(headers),
    key,
    dedupId,
    delayMs: toMs(delayMs),
  };
}

function toBytes(body) {
  return typeof body === "string" ? new TextEncoder().encode(body) : new Uint8Array(body);
}

/** Whole milliseconds, rounded up: a short time must not become none. */
function toMs(ms) {
  return ms === undefined ? undefined : BigInt(Math.ceil(ms));
}

export class Delivery {
  constructor({ body, headers, sentAtMs, deadlineMs, ...rest }) {
    Object.assign(this, rest);
    // The bindings run in a realm of their own, with other arrays.
    this.body = new Uint8Array(body);
    this.headers = Array.from(headers, ([name, value]) => [name, value]);
    this.sentAt = new Date(Number(sentAtMs));
    this.deadline = new Date(Number(deadlineMs));
  }

  get isLastAttempt() {
    return this.attempt >= this.maxAttempts;
  }

  text() {
    return new TextDecoder().decode(this.body);
  }

  json() {
    return JSON.parse(this.text());
  }

  header(name) {
    return this.headers.find(([key]) => key === name)?.[1];
  }

  extend(ms) {
    host(() => extend(this.id, Math.ceil(ms)));
  }
}

class Outcome {
  constructor(tag, val) {
    this.tag = tag;
    this.val = val;
  }
}

export const retry = (afterMs) => new Outcome("retry", toMs(afterMs));
export const dead = (reason) => new Outcome("dead", reason);

export function consumer(handle) {
  return {
    async handle(batch) {
      run();
      const outcomes = [];
      for (const delivery of batch) outcomes.push(await outcome(handle, new Delivery(delivery)));
      return outcomes;
    },
  };
}

async function outcome(handle, delivery) {
  try {
    const result = await handle(delivery);
    return result instanceof Outcome ? result : new Outcome("ack");
  } catch (error) {
    console.error(`failed to handle message ${delivery.id}:`, describe(error));
    return retry();
  }
}

export class QueueError extends WrunError {
  name = "QueueError";
}

export class DeniedError extends QueueError {
  constructor(what) {
    super("denied", `queue denied: ${what}`);
  }
}

export class InvalidError extends QueueError {
  constructor(what) {
    super("invalid", `invalid message: ${what}`);
  }
}

export class FullError extends QueueError {
  constructor() {
    super("full", "the queue is full");
  }
}

export class TooLargeError extends QueueError {
  constructor(what) {
    super("too-large", `message too large: ${what}`);
  }
}

export class ClosedError extends QueueError {
  constructor() {
    super("closed", "the transaction has ended");
  }
}

export class OutcomeUnknownError extends QueueError {
  constructor() {
    super("outcome-unknown", "the connection broke, nobody can tell whether the message was taken");
  }
}

export class NotYoursError extends QueueError {
  constructor() {
    super("not-yours", "the delivery is somebody else's, or over");
  }
}

export class RefusedError extends QueueError {
  constructor([sqlstate, message]) {
    super(sqlstate, `${sqlstate}: ${message}`);
  }
}

export class UnavailableError extends QueueError {
  retryable = true;

  constructor(what) {
    super("unavailable", `the queue is unavailable: ${what}`);
  }
}

export class OtherError extends QueueError {
  constructor(what) {
    super("other", what);
  }
}

const CASES = {
  denied: DeniedError,
  invalid: InvalidError,
  full: FullError,
  "too-large": TooLargeError,
  closed: ClosedError,
  "outcome-unknown": OutcomeUnknownError,
  "not-yours": NotYoursError,
  refused: RefusedError,
  unavailable: UnavailableError,
  other: OtherError,
};

const host = (work) => call(CASES, work);
