/** An error of the host. */
export declare class WrunError extends Error {
  /** Which case it is, such as `timeout`; where the engine refused a statement its SQLSTATE, such as `23505`. */
  readonly code: string;
  /** Whether the same work, done again from its beginning, may succeed. */
  readonly retryable: boolean;
}
