// Locks: mutual exclusion between guests. The types and the documentation are in lock.d.ts.

import { Space } from "#host";
import { WrunError, call } from "./error.js";
import { RAW } from "./raw.js";

export function acquire(keys, { space = "default", waitMs, ttlMs, renew } = {}) {
  const list = typeof keys === "string" ? [keys] : [...keys];
  const options = { waitMs: whole(waitMs), ttlMs: whole(ttlMs), renew };
  return host(() => {
    const opened = Space.open(space);
    try {
      return new Guard(opened.acquire(list, options));
    } finally {
      opened[Symbol.dispose]();
    }
  });
}

export function withLock(keys, work, options) {
  const guard = acquire(keys, options);
  let result;
  try {
    result = work(guard);
  } catch (error) {
    guard[Symbol.dispose]();
    throw error;
  }
  if (typeof result?.then !== "function") {
    guard.release();
    return result;
  }
  return result.then(
    (value) => {
      guard.release();
      return value;
    },
    (error) => {
      guard[Symbol.dispose]();
      throw error;
    },
  );
}

export class Guard {
  #raw;
  #token;

  constructor(raw) {
    this.#raw = raw;
    this.#token = raw.token();
  }

  get [RAW]() {
    // A handle that was dropped would end the whole instance.
    if (!this.#raw) throw new LostError();
    return this.#raw;
  }

  get token() {
    return this.#token;
  }

  isHeld() {
    return this.#raw?.isHeld() ?? false;
  }

  extend(ttlMs) {
    host(() => this[RAW].extend(whole(ttlMs)));
  }

  release() {
    try {
      host(() => this[RAW].release());
    } finally {
      this[Symbol.dispose]();
    }
  }

  [Symbol.dispose]() {
    const raw = this.#raw;
    this.#raw = undefined;
    raw?.[Symbol.dispose]();
  }
}

export class LockError extends WrunError {
  name = "LockError";
}

export class DeniedError extends LockError {
  constructor(what) {
    super("denied", `lock space denied: ${what}`);
  }
}

export class InvalidError extends LockError {
  constructor(what) {
    super("invalid", `invalid lock: ${what}`);
  }
}

export class TimeoutError extends LockError {
  constructor() {
    super("timeout", "timed out waiting for a lock");
  }
}

export class LostError extends LockError {
  constructor() {
    super("lost", "the lock was lost");
  }
}

export class WouldDeadlockError extends LockError {
  constructor() {
    super("would-deadlock", "waiting for this lock would never end");
  }
}

export class LimitError extends LockError {
  constructor(what) {
    super("limit", `limit of locks reached: ${what}`);
  }
}

export class UnavailableError extends LockError {
  retryable = true;

  constructor(what) {
    super("unavailable", `locks are unavailable: ${what}`);
  }
}

export class OtherError extends LockError {
  constructor(what) {
    super("other", what);
  }
}

const CASES = {
  denied: DeniedError,
  invalid: InvalidError,
  timeout: TimeoutError,
  lost: LostError,
  "would-deadlock": WouldDeadlockError,
  limit: LimitError,
  unavailable: UnavailableError,
  other: OtherError,
};

const host = (work) => call(CASES, work);

/** Whole milliseconds, rounded up: a short time must not become none. */
function whole(ms) {
  return ms === undefined ? undefined : Math.ceil(ms);
}
