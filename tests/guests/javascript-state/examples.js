// Writes each example of the guide in TypeScript to a file, so that the compiler checks them.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const guide = readFileSync("guide-javascript.md", "utf8");
const examples = [...guide.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, text]) => text);
if (examples.length < 5) throw new Error("the examples were not found");
mkdirSync("src/guide", { recursive: true });
examples.forEach((text, index) => writeFileSync(`src/guide/${index + 1}.ts`, text));
