/**
 * HTTP: requests and responses are those of the web, `Request` and `Response`.
 *
 * The entry point of a project is its default export: a function, or an object with a `fetch` method, such as an
 * application of Hono. What it throws is written to the log and answers 500.
 *
 * ```js
 * export default {
 *   async fetch(request) {
 *     const { pathname } = new URL(request.url);
 *     return pathname === "/" ? new Response("Hello!\n") : new Response("Not found\n", { status: 404 });
 *   },
 * };
 * ```
 *
 * @module
 */

/** A function that answers requests. */
export type Handler = (request: Request) => Response | Promise<Response>;

/** What answers requests: a handler, or an object that has one as `fetch`. */
export type App = Handler | { fetch: Handler };

/**
 * Makes `app` answer the component's requests. A project's default export is served without a call: this is for entry
 * modules that `bundle.js` does not see.
 */
export declare function serve(app: App): void;
