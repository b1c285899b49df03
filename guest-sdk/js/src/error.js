// Errors of the host: one class for each case, with the case's name as its code.

export class WrunError extends Error {
  retryable = false;

  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Calls the host. What it throws is thrown as one of `cases`, a map from names of cases to classes. */
export function call(cases, work) {
  try {
    return work();
  } catch (thrown) {
    const Case = cases[thrown?.payload?.tag];
    throw Case ? new Case(thrown.payload.val) : thrown;
  }
}
