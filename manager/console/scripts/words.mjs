// Each key of one language is in the other with the same places for values, every key that the code
// names exists, and none is left that no code names.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const folder = new URL("../src/", import.meta.url).pathname;
const faults = [];

function flat(value, at = "", into = new Map()) {
  for (const [key, inner] of Object.entries(value)) {
    const name = at ? `${at}.${key}` : key;
    if (typeof inner === "string") into.set(name, inner);
    else flat(inner, name, into);
  }
  return into;
}

const languages = ["en", "ja"].map((name) => [
  name,
  flat(JSON.parse(readFileSync(join(folder, `words/${name}.json`), "utf8"))),
]);
// Languages differ in their plural forms.
const base = (key) => key.replace(/_(one|other)$/, "");
const places = (text) => [...new Set(text.match(/\{\{\w+\}\}/g) ?? [])].sort().join(" ");
for (const [name, words] of languages) {
  for (const [other, others] of languages) {
    const known = new Set([...others.keys()].map(base));
    for (const [key, text] of words) {
      if (!known.has(base(key))) faults.push(`${other}.json has no ${key}, which ${name}.json has`);
      if (text.trim() === "") faults.push(`${name}.json: ${key} is empty`);
      const there = others.get(key);
      if (there !== undefined && places(there) !== places(text))
        faults.push(`${key}: ${name} has ${places(text)}, ${other} has ${places(there)}`);
    }
  }
}

const keys = new Set([...languages[0][1].keys()].map(base));
const used = new Set();
const starts = new Set();
function read(at) {
  for (const entry of readdirSync(at, { withFileTypes: true })) {
    const path = join(at, entry.name);
    if (entry.isDirectory()) read(path);
    else if (/\.tsx?$/.test(entry.name) && entry.name !== "schema.ts") {
      const text = readFileSync(path, "utf8");
      for (const [, key] of text.matchAll(/["'`]([a-z]\w*(?:\.\w+)+)["'`]/g)) {
        used.add(key);
        const first = key.split(".")[0];
        const named = new RegExp(`\\bt\\(\\s*["'\`]${key.replaceAll(".", "\\.")}["'\`]`).test(text);
        if (named && !keys.has(key)) faults.push(`${entry.name}: no words for ${key} (${first})`);
      }
      for (const [, key] of text.matchAll(/\bt\(\s*["'](\w+)["']/g)) {
        used.add(key);
        if (!keys.has(key)) faults.push(`${entry.name}: no words for ${key}`);
      }
      for (const [, start] of text.matchAll(/`([a-z]\w*(?:\.\w+)*\.)\$\{/g)) starts.add(start);
    }
  }
}
read(folder);
for (const key of keys) {
  if (!used.has(key) && ![...starts].some((start) => key.startsWith(start)))
    faults.push(`nobody says ${key}`);
}
for (const fault of faults) console.error(fault);
process.exit(faults.length ? 1 : 0);
