// Why a call to a database failed. The types and the documentation are in ../db.d.ts.

import { WrunError, call } from "../error.js";

export class DbError extends WrunError {
  name = "DbError";
}

export class DeniedError extends DbError {
  constructor(what) {
    super("denied", `denied: ${what}`);
  }
}

export class InvalidError extends DbError {
  constructor(what) {
    super("invalid", `invalid: ${what}`);
  }
}

export class RefusedError extends DbError {
  constructor({ code, message, constraint, retryable }) {
    super(code, `${code}: ${message}`);
    this.constraint = constraint;
    this.retryable = retryable;
  }
}

export class TimeoutError extends DbError {
  constructor(what) {
    super("timeout", `timed out: ${what}`);
  }
}

export class ClosedError extends DbError {
  constructor() {
    super("closed", "the transaction has ended");
  }
}

export class LostFenceError extends DbError {
  constructor() {
    super("lost-fence", "a lock of the transaction was lost");
  }
}

export class OutcomeUnknownError extends DbError {
  constructor() {
    super("outcome-unknown", "the connection broke during the commit, its outcome is unknown");
  }
}

export class TooLargeError extends DbError {
  constructor(what) {
    super("too-large", `too large: ${what}`);
  }
}

export class UnavailableError extends DbError {
  retryable = true;

  constructor(what) {
    super("unavailable", `unavailable: ${what}`);
  }
}

export class OtherError extends DbError {
  constructor(what) {
    super("other", what);
  }
}

export class RowCountError extends DbError {
  constructor(count) {
    super("row-count", `expected one row, got ${count}`);
  }
}

const CASES = {
  denied: DeniedError,
  invalid: InvalidError,
  db: RefusedError,
  timeout: TimeoutError,
  closed: ClosedError,
  "lost-fence": LostFenceError,
  "outcome-unknown": OutcomeUnknownError,
  "too-large": TooLargeError,
  unavailable: UnavailableError,
  other: OtherError,
};

/** Calls the host. */
export const host = (work) => call(CASES, work);
