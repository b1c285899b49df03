// How a project becomes the one module that is compiled: what `jco componentize --bundle-config` is given.
//
// The project's own entry module stays as it is, so that tests can import it: what its exports mean is put around it.

import { fileURLToPath } from "node:url";

const ENTRY = "\0wrun:entry";
const TERMINAL = "\0wrun:terminal";
const HTTP = JSON.stringify(fileURLToPath(new URL("./src/http.js", import.meta.url)));

let project;

const entry = {
  name: "wrun:entry",
  resolveId(source, _importer, { isEntry }) {
    if (isEntry) {
      project = source;
      return ENTRY;
    }
  },
  async load(id) {
    if (id !== ENTRY) return;
    const { exports } = await this.load({ id: project });
    // `wrun build` says what the component is to export; without it, compiling fails later and less clearly.
    if (process.env.WRUN_WORLD?.endsWith("consumer") && !exports.includes("consumer")) {
      this.error(`${project} exports no consumer: export const consumer = queue.consumer((delivery) => {})`);
    }
    const from = JSON.stringify(project);
    const lines = [`export * from ${from};`];
    if (exports.includes("default")) {
      lines.push(`import app from ${from};`, `import { serve } from ${HTTP};`, "serve(app);");
    }
    return lines.join("\n");
  },
};

// jco's stand-in for `process`, which half of npm mentions, asks for terminals, and those for a host that has some.
const terminal = {
  name: "wrun:terminal",
  resolveId: (source) => (source === "node:tty" ? TERMINAL : undefined),
  load(id) {
    if (id !== TERMINAL) return;
    return `export const isatty = () => false;
      export class ReadStream {}
      export class WriteStream {}
      export default { isatty, ReadStream, WriteStream };`;
  },
};

export default {
  external: /^(wrun|wasi):/,
  plugins: [entry, terminal],
  transform: { define: { "process.env.NODE_ENV": '"production"' } },
  onLog(level, log, handle) {
    if (log.code !== "UNRESOLVED_IMPORT") return handle(level, log);
    // Left alone it becomes an import of the component, and no host has it.
    const [, builtin] = log.exporter.match(/^jco:(node\/[^@]+)/) ?? [];
    handle(
      "error",
      builtin
        ? `${builtin.replace("/", ":")} is used: a component has no files, processes or sockets that it could work with`
        : `cannot find ${log.exporter}, which ${log.id}:${log.loc?.line} imports: is it installed?`,
    );
  },
};
