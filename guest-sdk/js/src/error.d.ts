/** An error of the host. */
export declare class WrunError extends Error {
  /** Which case it is, such as `timeout`. */
  readonly code: string;
  /** Whether the same work, done again from its beginning, may succeed. */
  readonly retryable: boolean;
}
