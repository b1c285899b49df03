// A transaction, and how one is run again where that may help. The types and the documentation are in ../db.d.ts.

import { subscribeDuration } from "#host";
import { RAW } from "../raw.js";
import { ClosedError, DbError, RowCountError, host } from "./error.js";
import { toInteger, toRow, toValues } from "./value.js";

/** How often a transaction is run again. */
const RETRIES_MAX = 5;
/** The longest pause before the first retry; each further one may be twice as long. */
const PAUSE_MAX_MS = 20;
/** Rows that a cursor fetches at a time. */
const PAGE_ROWS = 500;

export class Transaction {
  #raw;
  #failedRetryably = false;

  constructor(raw) {
    this.#raw = raw;
  }

  get [RAW]() {
    // A handle that was dropped would end the whole instance.
    if (!this.#raw) throw new ClosedError();
    return this.#raw;
  }

  query(sql, ...params) {
    return toRows(this.#call((raw) => raw.query(sql, toValues(params))));
  }

  queryOne(sql, ...params) {
    return one(this.query(sql, ...params));
  }

  queryOpt(sql, ...params) {
    return optional(this.query(sql, ...params));
  }

  execute(sql, ...params) {
    return toDone(this.#call((raw) => raw.execute(sql, toValues(params))));
  }

  rows(sql, ...params) {
    const cursor = this.#call((raw) => raw.openCursor(sql, toValues(params)));
    return this.#fetch(cursor);
  }

  *#fetch(cursor) {
    try {
      const columns = cursor.columns();
      for (;;) {
        const page = this.#call(() => cursor.next(PAGE_ROWS));
        if (page.length === 0) return;
        for (const values of page) yield toRow(columns, values);
      }
    } finally {
      cursor[Symbol.dispose]();
    }
  }

  markProcessed(id) {
    return this.#call((raw) => raw.markProcessed(id));
  }

  commit() {
    try {
      this.#call((raw) => raw.commit());
    } finally {
      this[Symbol.dispose]();
    }
  }

  rollback() {
    this[RAW].rollback();
    this[Symbol.dispose]();
  }

  [Symbol.dispose]() {
    const raw = this.#raw;
    this.#raw = undefined;
    raw?.[Symbol.dispose]();
  }

  /** Whether a call failed in a way that another try may not: the work may throw an error of its own for it. */
  get failedRetryably() {
    return this.#failedRetryably;
  }

  /** Remembers that another try may succeed where this one failed. */
  retryMayHelp() {
    this.#failedRetryably = true;
  }

  #call(work) {
    try {
      const raw = this[RAW];
      return host(() => work(raw));
    } catch (error) {
      if (error.retryable) this.retryMayHelp();
      throw error;
    }
  }
}

/** Runs `work` in transactions that `begin` begins, until one is committed or another try would not help. */
export function run(begin, work) {
  for (let retries = 0; ; retries += 1) {
    let tx;
    try {
      tx = begin();
      const value = work(tx);
      refusePromise(value);
      tx.commit();
      return value;
    } catch (error) {
      tx?.[Symbol.dispose]();
      const retryMayHelp = tx ? tx.failedRetryably : error instanceof DbError && error.retryable;
      if (!retryMayHelp || retries === RETRIES_MAX) throw error;
      pause(PAUSE_MAX_MS << retries);
    }
  }
}

function refusePromise(value) {
  if (typeof value?.then !== "function") return;
  value.then(undefined, () => {}); // It fails once it goes on, and nobody waits for it.
  throw new TypeError("the work of a transaction cannot be async: await before it, or use begin() and commit()");
}

/** Waits for a random time, so that those who were in each other's way are not again. */
function pause(msMax) {
  const timer = subscribeDuration(BigInt(Math.floor(Math.random() * msMax * 1e6)));
  timer.block();
  timer[Symbol.dispose]();
}

export function toRows({ columns, rows }) {
  return rows.map((values) => toRow(columns, values));
}

export function toDone({ affected, lastId }) {
  return { affected: Number(affected), lastId: lastId === undefined ? undefined : toInteger(lastId) };
}

export function one(rows) {
  if (rows.length !== 1) throw new RowCountError(rows.length);
  return rows[0];
}

export function optional(rows) {
  if (rows.length > 1) throw new RowCountError(rows.length);
  return rows[0];
}
