// Node.js in the place of the host: the modules load, so that a project's own logic can be tested, and calls throw.

function absent() {
  throw new Error("locks, databases and queues are there only in wrun: give the code under test a stand-in");
}

export const Database = { open: absent };
export const Queue = { open: absent };
export const Space = { open: absent };
export const extend = absent;
export const getEnvironment = absent;
export const subscribeDuration = absent;
