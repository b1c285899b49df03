// Databases: SQL with transactions. The types and the documentation are in db.d.ts.

import { Database as HostDatabase } from "#host";
import { host } from "./db/error.js";
import { Transaction, one, optional, run, toDone, toRows } from "./db/transaction.js";
import { toValues } from "./db/value.js";
import { RAW } from "./raw.js";

export {
  ClosedError,
  DbError,
  DeniedError,
  InvalidError,
  LostFenceError,
  OtherError,
  OutcomeUnknownError,
  RefusedError,
  RowCountError,
  TimeoutError,
  TooLargeError,
  UnavailableError,
} from "./db/error.js";
export { Transaction } from "./db/transaction.js";
export { date, decimal, json, time, uuid } from "./db/value.js";

export function open(label) {
  return new Database(host(() => HostDatabase.open(label)));
}

export class Database {
  #raw;

  constructor(raw) {
    this.#raw = raw;
  }

  query(sql, ...params) {
    return toRows(host(() => this.#raw.query(sql, toValues(params))));
  }

  queryOne(sql, ...params) {
    return one(this.query(sql, ...params));
  }

  queryOpt(sql, ...params) {
    return optional(this.query(sql, ...params));
  }

  execute(sql, ...params) {
    return toDone(host(() => this.#raw.execute(sql, toValues(params))));
  }

  batch(statements, options = {}) {
    const list = statements.map(([sql, ...params]) => ({ sql, params: toValues(params) }));
    const steps = host(() => this.#raw.batch(list, toOptions(options), fences(options)));
    return steps.map(({ tag, val }) => (tag === "rows" ? toRows(val) : toDone(val)));
  }

  transaction(work, options = {}) {
    return run(() => this.begin(options), work);
  }

  begin(options = {}) {
    return new Transaction(host(() => this.#raw.begin(toOptions(options), fences(options))));
  }

  get dialect() {
    return this.#raw.dialect();
  }
}

function toOptions({ readOnly = false, isolation, timeoutMs }) {
  return { readOnly, isolation, timeoutMs: timeoutMs === undefined ? undefined : Math.ceil(timeoutMs) };
}

function fences({ fences = [] }) {
  return fences.map((guard) => guard[RAW]);
}
