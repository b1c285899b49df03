// Values of JavaScript as values of SQL, and back.

/** A parameter of a type that JavaScript has no type for. */
export class Typed {
  constructor(tag, val) {
    this.tag = tag;
    this.val = val;
  }
}

export const json = (value) => new Typed("json", JSON.stringify(value));
export const decimal = (text) => new Typed("decimal", text);
export const date = (text) => new Typed("date", text);
export const time = (text) => new Typed("time", text);

export function uuid(text) {
  const digits = text.replaceAll("-", "");
  if (!/^[0-9a-f]{32}$/i.test(digits)) {
    throw new TypeError(`not a UUID: ${text}`);
  }
  return new Typed("uuid", [BigInt(`0x${digits.slice(0, 16)}`), BigInt(`0x${digits.slice(16)}`)]);
}

export function toValues(params) {
  return params.map(toValue);
}

function toValue(param, index) {
  switch (typeof param) {
    case "boolean":
      return { tag: "boolean", val: param };
    case "number":
      return Number.isSafeInteger(param)
        ? { tag: "integer", val: BigInt(param) }
        : { tag: "real", val: param };
    case "bigint":
      if (BigInt.asIntN(64, param) !== param) {
        throw new RangeError(`parameter $${index + 1} does not fit into 64 bits`);
      }
      return { tag: "integer", val: param };
    case "string":
      return { tag: "text", val: param };
    case "object":
      return toObjectValue(param, index);
    default:
      throw new TypeError(`parameter $${index + 1} is of type ${typeof param}`);
  }
}

function toObjectValue(param, index) {
  if (param === null) return { tag: "null" };
  if (param instanceof Typed) return { tag: param.tag, val: param.val };
  if (param instanceof Date) return { tag: "timestamp-us", val: BigInt(param.getTime()) * 1000n };
  if (param instanceof ArrayBuffer) return { tag: "blob", val: new Uint8Array(param) };
  if (ArrayBuffer.isView(param)) {
    return { tag: "blob", val: new Uint8Array(param.buffer, param.byteOffset, param.byteLength) };
  }
  const what = Array.isArray(param) ? "an array" : "an object";
  throw new TypeError(`parameter $${index + 1} is ${what}: wrap it in db.json() to pass it as JSON`);
}

/** Returns a row as an object with its columns' names. */
export function toRow(columns, values) {
  return Object.fromEntries(columns.map(({ name }, index) => [name, fromValue(values[index])]));
}

function fromValue({ tag, val }) {
  switch (tag) {
    case "null":
      return null;
    case "integer":
      return toInteger(val);
    case "blob":
      return new Uint8Array(val); // The bindings run in a realm of their own, with another `Uint8Array`.
    case "timestamp-us":
      return new Date(Number(val / 1000n));
    case "uuid":
      return hyphenated(val);
    case "json":
      return JSON.parse(val);
    case "other":
      return val[1];
    default:
      return val;
  }
}

/** Returns a number where it is exact, otherwise a bigint. */
export function toInteger(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function hyphenated(halves) {
  const digits = halves.map((half) => half.toString(16).padStart(16, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
