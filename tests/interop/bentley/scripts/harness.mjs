// One check is one line of JSON on stdout: its sentence, whether it holds and, if not, what came.
import { AssertionError } from "node:assert";
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

export { assert };
export const require = createRequire(import.meta.url);
export const given = JSON.parse(process.argv[2]); // {url, tokens: {name: token}, folder}

const SECONDS = 60; // for one check

export async function check(sentence, body) {
  const over = new AbortController();
  const limit = pause(SECONDS * 1000, undefined, { signal: over.signal }).then(
    () => {
      throw new Error(`no end after ${SECONDS} s`);
    },
    () => undefined,
  );
  try {
    await Promise.race([body(), limit]);
    say({ check: sentence, holds: true });
  } catch (error) {
    say({ check: sentence, holds: false, came: describe(error) });
  } finally {
    over.abort();
  }
}

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function describe(error) {
  if (!(error instanceof Error)) return JSON.stringify(error);
  const where = error.stack?.match(/\w+\.mjs:\d+(?=:\d+)/g)?.filter((line) => !line.startsWith("harness"));
  const found = { message: error.message, where };
  if (error instanceof AssertionError) Object.assign(found, { actual: error.actual, expected: error.expected });
  else for (const key of ["code", "statusCode", "details", "objectIds", "conflictingLocks"]) found[key] = error[key];
  return JSON.stringify(found, null, 2);
}

export const as = (name) => async () => ({ scheme: "Bearer", token: given.tokens[name] });

// What one of Bentley's iModels clients throws, held to its code and, if given, to its message.
export async function refused(promise, code, message) {
  const error = await promise.then(
    () => assert.fail(`not refused; ${code} was expected`),
    (thrown) => thrown,
  );
  assert.ok(error instanceof Error, `thrown: ${JSON.stringify(error)}`);
  assert.deepEqual({ code: error.code, name: error.name }, { code, name: code }, error.message);
  if (message !== undefined) assert.equal(error.message, message);
  return error;
}

export async function until(question, seconds = 20) {
  for (let left = seconds * 20; left > 0; left -= 1) {
    const found = await question();
    if (found) return found;
    await pause(50);
  }
  return assert.fail(`not within ${seconds} s: ${question}`);
}

// The client itself, but each call of one of its public methods, in whatever group, is noted as `group.method`.
export function watched(client, called) {
  const wrap = (target, prefix) =>
    new Proxy(target, {
      get(_, name) {
        const value = target[name];
        if (typeof value === "function") {
          called.add(`${prefix}${String(name)}`);
          return value.bind(target);
        }
        return value !== null && typeof value === "object" && prefix === "" ? wrap(value, `${String(name)}.`) : value;
      },
    });
  return wrap(client, "");
}

// The public methods of one class, as its own package declares them.
export function methods(file) {
  const text = readFileSync(file, "utf8");
  return [...text.matchAll(/^    (?!private|protected|constructor|get )(\w+)\(/gm)].map((found) => found[1]);
}

// `group.method` of every operation that an iModels client declares, from the declarations beside its entry point.
export function operations(packageName) {
  const folder = path.dirname(require.resolve(packageName));
  const groups = readFileSync(path.join(folder, "IModelsClient.d.ts"), "utf8");
  const files = new Map();
  for (const area of readdirSync(path.join(folder, "operations"), { withFileTypes: true })) {
    if (!area.isDirectory()) continue;
    for (const name of readdirSync(path.join(folder, "operations", area.name)))
      if (name.endsWith("Operations.d.ts"))
        files.set(name.slice(0, -".d.ts".length), path.join(folder, "operations", area.name, name));
  }
  const all = [];
  for (const [, group, type] of groups.matchAll(/^    get (\w+)\(\): (\w+Operations)\b/gm))
    for (const method of methods(files.get(type))) all.push(`${group}.${method}`);
  return all;
}
