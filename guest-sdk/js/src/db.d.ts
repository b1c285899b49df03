/// <reference lib="esnext.disposable" />
/**
 * Databases: SQL with transactions.
 *
 * ```js
 * import * as db from "@wrun/sdk/db";
 *
 * const shop = db.open("default");
 * shop.execute("INSERT INTO items (name) VALUES ($1)", "lamp");
 * const items = shop.query("SELECT id, name FROM items WHERE price < $1", 100);
 * const { count } = shop.queryOne("SELECT count(*) AS count FROM items");
 * ```
 *
 * A row is an object with its columns' names. Values become:
 *
 * | SQL | JavaScript |
 * |---|---|
 * | NULL | `null` |
 * | a whole number | `number` if that is exact (up to 2^53 - 1 either way), otherwise `bigint` |
 * | a floating-point number | `number` |
 * | text | `string` |
 * | bytes | `Uint8Array` |
 * | BOOLEAN | `boolean` |
 * | TIMESTAMP, DATETIME | `Date`, whole milliseconds |
 * | JSON | what the document holds |
 * | DECIMAL, DATE, TIME, UUID | `string` |
 *
 * The kinds in capitals are a column's declared type. An expression such as `EXISTS (...)` is 0 or 1.
 *
 * @module
 */
import { WrunError } from "./error.js";
import { Guard } from "./lock.js";

/**
 * A value of `$1`, `$2`, ... A number that is a safe integer is passed as a whole number, any other as a floating-point
 * number. `undefined` is refused, and so is an object that is none of these: {@link json} passes one as JSON.
 */
export type Param = null | boolean | number | bigint | string | ArrayBuffer | ArrayBufferView | Date | Typed;

/** A parameter of a type that JavaScript has no type for. */
export interface Typed {
  readonly tag: "json" | "decimal" | "date" | "time" | "uuid";
  readonly val: unknown;
}

/** Passes a value as a JSON document. */
export declare function json(value: unknown): Typed;
/** Passes an exact decimal number, such as `-12.50`. */
export declare function decimal(text: string): Typed;
/** Passes a date, `YYYY-MM-DD`. */
export declare function date(text: string): Typed;
/** Passes a time of day, `HH:MM:SS[.ffffff]`. */
export declare function time(text: string): Typed;
/** Passes a UUID, with or without hyphens. */
export declare function uuid(text: string): Typed;

/** A row: its values by the names of their columns. */
export type Row = Record<string, any>;

/** What a statement that returns no rows did. */
export interface Done {
  /** Rows that it inserted, changed or deleted. */
  affected: number;
  /** The row id of the last row that it inserted, where the engine has one. */
  lastId: number | bigint | undefined;
}

/** How to run a transaction. */
export interface TxOptions {
  /**
   * Whether it only reads: it then sees one snapshot and waits for no writer. A replica may serve it, which may not have the
   * last writes yet, those of this guest included.
   */
  readOnly?: boolean;
  /** How far it is kept apart from others: `serializable` by default, and on the embedded engine always. */
  isolation?: "read-committed" | "repeatable-read" | "serializable";
  /** How long it may take in all, in milliseconds: 30 seconds by default and at most. */
  timeoutMs?: number;
  /** Locks without which it is not committed; {@link LostFenceError} says that one was lost. */
  fences?: Guard[];
}

/** A statement and its parameters. */
export type Statement = [sql: string, ...params: Param[]];

/** Opens a database that the manifest grants under this label in `[databases]`. */
export declare function open(label: string): Database;

/** What runs statements. */
interface Statements {
  /** Runs a query and returns its rows. */
  query<T extends object = Row>(sql: string, ...params: Param[]): T[];
  /** Runs a query that has exactly one row; {@link RowCountError} says that it had not. */
  queryOne<T extends object = Row>(sql: string, ...params: Param[]): T;
  /** Runs a query that has one row or none. */
  queryOpt<T extends object = Row>(sql: string, ...params: Param[]): T | undefined;
  /** Runs a statement for its effect. */
  execute(sql: string, ...params: Param[]): Done;
}

/** A database. Each statement runs in a transaction of its own: when `execute` returns the change is durable. */
export declare class Database implements Statements {
  private constructor();
  query<T extends object = Row>(sql: string, ...params: Param[]): T[];
  queryOne<T extends object = Row>(sql: string, ...params: Param[]): T;
  queryOpt<T extends object = Row>(sql: string, ...params: Param[]): T | undefined;
  execute(sql: string, ...params: Param[]): Done;
  /**
   * Runs statements in one transaction and one round trip: all of them take effect, or none. Returns the rows of each
   * statement that has some, and of the others what they did.
   *
   * ```js
   * db.open("default").batch([
   *   ["UPDATE accounts SET balance = balance - $1 WHERE id = $2", 10, "alice"],
   *   ["UPDATE accounts SET balance = balance + $1 WHERE id = $2", 10, "bob"],
   * ]);
   * ```
   */
  batch(statements: Statement[], options?: TxOptions): (Row[] | Done)[];
  /**
   * Runs `work` in a transaction, commits it and returns what `work` returns. If `work` throws, nothing is changed.
   *
   * Where the host says that the same may succeed on another try, `work` is called again in a new transaction, up to 5
   * times, each after a longer pause. So it should do nothing outside of the transaction that must not be done twice. It
   * cannot be async: others wait for a transaction that writes. {@link OutcomeUnknownError} is never tried again.
   *
   * ```js
   * const left = db.open("default").transaction((tx) => {
   *   const { n } = tx.queryOne("SELECT n FROM stock WHERE id = $1 FOR UPDATE", 1);
   *   tx.execute("UPDATE stock SET n = $1 WHERE id = $2", n - 1, 1);
   *   return n - 1;
   * });
   * ```
   */
  transaction<T>(
    work: (tx: Transaction) => T & (T extends PromiseLike<unknown> ? never : unknown),
    options?: TxOptions,
  ): T;
  /** Begins a transaction that the caller ends: for what `transaction` does not fit. */
  begin(options?: TxOptions): Transaction;
  /** The language of its statements: `sqlite`, `postgres`, `mysql` or `mariadb`. */
  readonly dialect: string;
}

/** An open transaction. Disposing of it rolls it back. */
export declare class Transaction implements Statements {
  private constructor();
  query<T extends object = Row>(sql: string, ...params: Param[]): T[];
  queryOne<T extends object = Row>(sql: string, ...params: Param[]): T;
  queryOpt<T extends object = Row>(sql: string, ...params: Param[]): T | undefined;
  execute(sql: string, ...params: Param[]): Done;
  /**
   * Runs a query whose rows are fetched as they are asked for: for more of them than fit into memory. At most 8 such are
   * open at a time.
   *
   * ```js
   * let total = 0;
   * for (const { price } of tx.rows("SELECT price FROM items")) total += price;
   * ```
   */
  rows<T extends object = Row>(sql: string, ...params: Param[]): Generator<T, void, undefined>;
  /**
   * Notes that the work called `id` is done, as part of this transaction. False says that it was done before, and then
   * there is nothing to do: this makes an effect happen once where a message may come twice.
   */
  markProcessed(id: string): boolean;
  /** Makes everything durable, or says exactly what it did not do. */
  commit(): void;
  /** Undoes everything. */
  rollback(): void;
  /** Undoes everything that was not committed: `using tx = database.begin()`. */
  [Symbol.dispose](): void;
}

/** Why a call to a database failed. Unless it says otherwise, nothing was changed. */
export declare class DbError extends WrunError {}
/** The manifest does not grant this database, or guests may not run such a statement. */
export declare class DeniedError extends DbError {}
/** The request makes no sense: several statements, a wrong number of parameters. */
export declare class InvalidError extends DbError {}
/** The engine refused the statement. In a transaction, the transaction goes on without it. */
export declare class RefusedError extends DbError {
  /** The SQLSTATE: `23505` for a unique key that is there already. */
  readonly code: string;
  /** The constraint that was violated, where the engine names it. */
  readonly constraint: string | undefined;
}
/** A time limit was reached, and the transaction was rolled back. */
export declare class TimeoutError extends DbError {}
/** The transaction or cursor has ended. */
export declare class ClosedError extends DbError {}
/** A lock that the transaction was begun with was lost, and the transaction was rolled back. */
export declare class LostFenceError extends DbError {}
/**
 * The connection broke during the commit: it happened wholly or not at all, and nobody can tell which. To repeat the work
 * is safe only if `markProcessed`, or a key of the caller's own, makes it so.
 */
export declare class OutcomeUnknownError extends DbError {}
/** A statement, parameter, row or result is over its limit. */
export declare class TooLargeError extends DbError {}
/** The database cannot be reached just now. Nothing was changed. */
export declare class UnavailableError extends DbError {}
/** Anything else. */
export declare class OtherError extends DbError {}
/** One row was wanted, and there were more or none. A statement outside of a transaction took effect all the same. */
export declare class RowCountError extends DbError {}
