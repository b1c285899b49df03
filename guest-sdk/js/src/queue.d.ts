/**
 * Queues: messages for later, handled at least once by a {@link consumer}.
 *
 * ```js
 * import * as db from "@wrun/sdk/db";
 * import * as queue from "@wrun/sdk/queue";
 *
 * queue.send("orders", { id: 1 });
 * queue.open("orders").send({ json: { id: 2 }, key: "alice", dedupId: "order-2", delayMs: 60_000 });
 *
 * export const consumer = queue.consumer((delivery) => {
 *   const order = delivery.json();
 *   db.open("default").transaction((tx) => {
 *     if (tx.markProcessed(delivery.id)) {
 *       tx.execute("UPDATE orders SET state = 'done' WHERE id = $1", order.id);
 *     }
 *   });
 * });
 * ```
 *
 * @module
 */
import { Transaction } from "./db.js";
import { WrunError } from "./error.js";

/** A message to be sent: it has either `json` or `body`. */
export interface Message {
  /** The content, a value that is sent as JSON. */
  json?: unknown;
  /** The content, at most 1 MiB. */
  body?: string | ArrayBuffer | Uint8Array;
  /** What the content is: `application/json` for `json`, otherwise nothing is said. */
  contentType?: string;
  /** Anything more, at most 16 KiB in all. */
  headers?: Record<string, string> | [name: string, value: string][];
  /** Messages of one queue with the same key are handled one at a time, in the order in which they were sent. */
  key?: string;
  /**
   * An id of the sender's own: if the queue was sent a message with this id within the last 5 minutes, this one is not
   * taken, and its sender gets the id of the first.
   */
  dedupId?: string;
  /** How long to wait before the message is handled, in milliseconds: at most 30 days. */
  delayMs?: number;
}

/** Sends a value, as JSON, to the queue with this label. Returns the message's id; by then it is durable. */
export declare function send(label: string, value: unknown): string;

/** Opens a queue that the manifest grants under this label in `[queues]`. */
export declare function open(label: string): Queue;

/** A queue. */
export declare class Queue {
  private constructor();
  /** Sends a message and returns its id; by then it is durable. */
  send(message: Message): string;
  /** Sends messages, all or none, and returns their ids; by then they are durable. */
  send(messages: Message[]): string[];
  /**
   * Sends a message as part of a transaction of the database that the queue lives in: it is there if and when the
   * transaction commits.
   *
   * ```js
   * db.open("default").transaction((tx) => {
   *   tx.execute("INSERT INTO orders (id, state) VALUES ($1, 'queued')", 42);
   *   queue.open("orders").sendIn(tx, { json: { id: 42 } });
   * });
   * ```
   */
  sendIn(tx: Transaction, message: Message): string;
  /** Sends messages as part of a transaction: they are there if and when it commits. */
  sendIn(tx: Transaction, messages: Message[]): string[];
}

/**
 * Makes a component's handler of messages, exported as `consumer`. It is called for each message of the queues under
 * `[consumers]` in `wrun.toml`. Messages come at least once: what handling one changes in a database belongs in one
 * transaction with `markProcessed`, so that it happens once.
 *
 * A handler that returns is done with the message, unless it returns {@link retry} or {@link dead}. What it throws is
 * written to the log, and the message comes again; the queue's last attempt sends it to the dead letters.
 */
export declare function consumer(handle: (delivery: Delivery) => unknown): Consumer;

/** What `wrun:queue/consumer` is made of. */
export interface Consumer {
  handle(batch: unknown[]): Promise<unknown[]>;
}

/** One try at handling a message. */
export declare class Delivery {
  private constructor();
  /** The message's id: the same in every try, so it can be passed to `markProcessed`. */
  readonly id: string;
  /** The queue's label. */
  readonly queue: string;
  /** The key that it was sent with. */
  readonly key: string | undefined;
  /** Which try this is, from 1. */
  readonly attempt: number;
  /** After how many tries it goes to the dead letters. */
  readonly maxAttempts: number;
  /** Whether this is the last try. */
  readonly isLastAttempt: boolean;
  /** When it was sent. */
  readonly sentAt: Date;
  /** When the try is over: after that the message may be handled by somebody else. */
  readonly deadline: Date;
  /** What the content is. */
  readonly contentType: string | undefined;
  /** What was sent along. */
  readonly headers: [name: string, value: string][];
  /** The content. */
  readonly body: Uint8Array;
  /** Returns the content as text. */
  text(): string;
  /** Reads the content as JSON. */
  json<T = any>(): T;
  /** Returns the first header of this name. */
  header(name: string): string | undefined;
  /** Gives this try so many milliseconds from now, at most 12 hours: for work that takes longer than the queue allows. */
  extend(ms: number): void;
}

declare const outcome: unique symbol;

/** What became of a delivery that is not simply done. */
export interface Outcome {
  readonly [outcome]: true;
}

/** Not handled: the message comes again after so many milliseconds, or after the queue's backoff. */
export declare function retry(afterMs?: number): Outcome;

/** It can never be handled: to the dead letters, with this reason. */
export declare function dead(reason: string): Outcome;

/** Why a message was not taken. Unless it says otherwise, none of those sent together was. */
export declare class QueueError extends WrunError {}
/** The manifest does not grant this queue. */
export declare class DeniedError extends QueueError {}
/** The request makes no sense: no message, too many, a queue of another database than the transaction's. */
export declare class InvalidError extends QueueError {}
/** The queue holds as many messages as it may. */
export declare class FullError extends QueueError {}
/** A message is over its limit. */
export declare class TooLargeError extends QueueError {}
/** The transaction has ended. */
export declare class ClosedError extends QueueError {}
/**
 * The connection broke after the messages were sent: nobody can tell whether they were taken. A `dedupId` makes it safe to
 * send them again.
 */
export declare class OutcomeUnknownError extends QueueError {}
/** The delivery is not this instance's, or not any more. */
export declare class NotYoursError extends QueueError {}
/** The engine refused. */
export declare class RefusedError extends QueueError {
  /** The SQLSTATE. */
  readonly code: string;
}
/** The queue cannot be reached just now. Nothing was taken. */
export declare class UnavailableError extends QueueError {}
/** Anything else. */
export declare class OtherError extends QueueError {}
