// A policy's document: TOML that people write by hand, and that the forms change without touching what
// else stands in it: comments, order, and what no form knows.
//
// INVARIANT: the text is the document. A form shows what it says and writes into it; where the text
// cannot be read, or would not say afterwards what was asked for, a form changes nothing.
import { parse, patch, stringify, TomlFormat } from "@decimalturn/toml-patch";

export interface Schedule {
  name?: string;
  kind?: string;
  paths?: string[];
  every?: string;
  cron?: string;
  jitter?: string;
  catch_up?: boolean;
  cpu_share?: number;
  timezone?: string;
}

/** What the forms know of it; everything may be missing, or be something else. */
export interface Document {
  on_access?: { mode?: string; deadline_ms?: number; max_file_size?: string | number; strict?: boolean; exclude?: { paths?: string[]; processes?: string[]; hashes?: string[] } };
  scan?: { cpu_share?: number; schedule?: Schedule[] };
  quarantine?: { max_size?: string | number };
  models?: { off?: string[]; response?: Record<string, string | string[]> };
  isolation?: { allow?: string[] };
}

/** Nothing where it is no TOML. */
export function readDocument(text: string): Document | null {
  try {
    return parse(text) as Document;
  } catch {
    return null;
  }
}

const same = (one: unknown, other: unknown) => JSON.stringify(sorted(one)) === JSON.stringify(sorted(other));

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return typeof value === "bigint" ? String(value) : value;
  const entries = Object.entries(value).map(([key, inner]): [string, unknown] => [key, sorted(inner)]);
  // A table that holds nothing says nothing.
  return Object.fromEntries(entries.filter(([, inner]) => !isEmpty(inner)).sort(([a], [b]) => (a < b ? -1 : 1)));
}

const isEmpty = (value: unknown) =>
  value === undefined || (value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length === 0);

/** Tables that are written as tables; what is deeper stands in one line, but for schedules. */
const TABLES = 2;

/** The text with this change; nothing where that cannot be done. */
export function changed(text: string, change: (document: Document) => void): string | null {
  const document = readDocument(text);
  if (!document) return null;
  change(document);
  try {
    const format = TomlFormat.autoDetectFormat(text);
    format.inlineTableStart = TABLES;
    format.bracketSpacing = /=\s*[[{] /.test(text);
    format.trailingNewline = 1;
    const written = patch(text, document, format);
    return same(readDocument(written), document) ? written : null;
  } catch {
    return null;
  }
}

/** Sets a key, or takes it away where there is no value. `path` names tables that are made where they are not. */
export function put(document: Document, path: string[], value: unknown) {
  let table = document as Record<string, unknown>;
  for (const name of path.slice(0, -1)) {
    const inner = table[name];
    if (inner === null || typeof inner !== "object" || Array.isArray(inner)) {
      if (value === undefined) return;
      table[name] = {};
    }
    table = table[name] as Record<string, unknown>;
  }
  const last = path.at(-1) ?? "";
  if (value === undefined) delete table[last];
  else table[last] = value;
}

/** Lines of a field, as a list; nothing where there is none. */
export function listOf(text: string): string[] | undefined {
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return lines.length ? lines : undefined;
}

/** Whether a model is off here: it may be named by id or by title. */
export const isOff = (document: Document, model: { id: string; title: string }) => {
  const off = strings(document.models?.off);
  return off.includes(model.id) || off.includes(model.title);
};

/** Turns a model on or off; what else is off stays. */
export function turn(document: Document, model: { id: string; title: string }, off: boolean) {
  const others = strings(document.models?.off).filter((one) => one !== model.id && one !== model.title);
  const list = off ? [...others, model.title] : others;
  put(document, ["models", "off"], list.length ? list : undefined);
}

/** What follows when a model fires; empty where the policy does not say. */
export function responsesOf(document: Document, model: { id: string; title: string }): string[] {
  const rows = document.models?.response;
  const row = rows && typeof rows === "object" ? (rows[model.title] ?? rows[model.id]) : undefined;
  return typeof row === "string" ? [row] : strings(row);
}

export function respond(document: Document, model: { id: string; title: string }, list: string[]) {
  const row = document.models?.response?.[model.id] === undefined ? model.title : model.id;
  put(document, ["models", "response", row], list.length ? list : undefined);
}

/** Text values of a list, whatever else stands in it. */
export const strings = (value: unknown): string[] => (Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : []);

export const schedulesOf = (document: Document): Schedule[] => {
  const list = document.scan?.schedule;
  return Array.isArray(list) ? list.filter((one) => one !== null && typeof one === "object") : [];
};

/** One more schedule, as a table of its own at the end. */
export function scheduled(text: string, schedule: Schedule): string | null {
  const document = readDocument(text);
  if (!document) return null;
  put(document, ["scan", "schedule"], [...schedulesOf(document), schedule]);
  const end = text === "" || text.endsWith("\n") ? text : `${text}\n`;
  const written = `${end}${end === "" ? "" : "\n"}[[scan.schedule]]\n${stringify(schedule)}`;
  // Where the list stands in one line, no table can follow it.
  return same(readDocument(written), document) ? written : changed(text, (one) => put(one, ["scan", "schedule"], document.scan?.schedule));
}
