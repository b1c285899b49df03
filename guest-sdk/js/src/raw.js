/** The key under which an object of the SDK keeps the host's, for other modules of the SDK. */
export const RAW = Symbol("raw");
