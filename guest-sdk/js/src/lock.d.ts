/// <reference lib="esnext.disposable" />
/**
 * Locks: mutual exclusion between guests, whichever worker process they run in.
 *
 * A lock is a key in a space; the space `default` is the one that is used unless another is named. Who holds a lock is
 * exact as long as the state process lives. Across a pause or a restart only the fencing token is: give the guard to
 * `transaction` as a fence, which commits only if it is still held.
 *
 * ```js
 * import * as db from "@wrun/sdk/db";
 * import * as lock from "@wrun/sdk/lock";
 *
 * lock.withLock("stock:1", (guard) =>
 *   db.open("default").transaction(
 *     (tx) => {
 *       const { n } = tx.queryOne("SELECT n FROM stock WHERE id = $1", 1);
 *       tx.execute("UPDATE stock SET n = $1 WHERE id = $2", n - 1, 1);
 *     },
 *     { fences: [guard] },
 *   ),
 * );
 * ```
 *
 * @module
 */
import { WrunError } from "./error.js";

/** How to take locks. */
export interface Options {
  /** The space of the keys, which the manifest grants under this label in `[locks]`: `default` by default. */
  space?: string;
  /** How long to wait for the keys, in milliseconds: 0 tries once. 10 seconds by default, 10 minutes at most. */
  waitMs?: number;
  /** How long a lock holds without a sign of life of this worker, in milliseconds: 30 seconds by default, 100 to a day. */
  ttlMs?: number;
  /**
   * Whether the host prolongs a lock for as long as its guard exists, as it does by default. If not, the lock is lost once
   * `ttlMs` is over, unless it is extended.
   */
  renew?: boolean;
}

/**
 * Takes all of the keys, or none. The host sorts them, so callers that want the same ones cannot block each other.
 *
 * @throws {TimeoutError} if a key stayed taken for `waitMs`, and other kinds of {@link LockError}
 */
export declare function acquire(keys: string | Iterable<string>, options?: Options): Guard;

/**
 * Does some work, which may be async, while it holds the keys, and releases them. Throws a {@link LostError} if they were
 * not held until the end: then what was done was not exclusive.
 */
export declare function withLock<T>(
  keys: string | Iterable<string>,
  work: (guard: Guard) => T,
  options?: Options,
): T;

/** Locks that are held together. The end of the instance releases them, and so does disposing of the guard. */
export declare class Guard {
  private constructor();
  /** The fencing token: for each of the keys greater than every one that was ever granted for it. */
  readonly token: bigint;
  /** Tells whether the locks are still held, as far as the host knows. False is final. */
  isHeld(): boolean;
  /** Makes the locks hold for so many milliseconds from now. */
  extend(ttlMs: number): void;
  /** Releases the locks. A {@link LostError} means that they were not held until now. */
  release(): void;
  /** Releases the locks, whether they are still held or not: `using guard = lock.acquire("key")`. */
  [Symbol.dispose](): void;
}

/** Why a lock could not be taken, kept or released. */
export declare class LockError extends WrunError {}
/** The manifest does not grant this space. */
export declare class DeniedError extends LockError {}
/** The request makes no sense: a key that is empty or too long, a time out of range. */
export declare class InvalidError extends LockError {}
/** A key stayed taken for as long as the caller would wait. */
export declare class TimeoutError extends LockError {}
/** The locks are not held any more. */
export declare class LostError extends LockError {}
/** Waiting would never end: this instance holds a key already, or its holder waits for this instance. */
export declare class WouldDeadlockError extends LockError {}
/** Too many locks, or too many that wait for one. */
export declare class LimitError extends LockError {}
/** The state process cannot be reached. Trying again later may succeed. */
export declare class UnavailableError extends LockError {}
/** Anything else. */
export declare class OtherError extends LockError {}
