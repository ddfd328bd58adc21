// The query language as the page writes it: which field of a search a value of an event answers to,
// and a query with one more term. What the language is, the manager decides (manager/src/query).

/** The fields that there are. */
export const FIELDS = [
  "kind", "host", "user", "uid", "pid", "exe", "sha256", "ip", "port", "domain", "model", "technique", "signature",
  "action", "container", "level", "id", "cmdline", "path", "text",
] as const;

/** One value of an event, with its place in it. */
export interface Field {
  name: string;
  value: string;
  /** The term that finds it; nothing where the index does not know it. */
  term: string | null;
  /** An absolute path: a file that can be collected. */
  file: boolean;
}

const WORD = /[\p{L}\p{N}]/u;
/** Where a value that belongs to a fact of the index stands. The last part of a list's name is `[]`. */
const FACTS: Record<string, string> = {
  kind: "kind", host: "host", id: "id", "process.user": "user", "process.uid": "uid", "process.key.pid": "pid",
  "process.exe": "exe", "process.script": "exe", "process.sha256": "sha256", "process.container": "container", sha256: "sha256",
  local_address: "ip", remote_address: "ip", local_port: "port", remote_port: "port", dns_name: "domain",
  model_id: "model", "attack[]": "technique", level: "level", "signature.name": "signature", activity: "action", action: "action",
};
const PATHS = ["path", "from", "target", "mount", "finds[].path", "target.exe", "source"];
const TEXTS = [
  "sha1", "md5", "title", "reason", "capability", "evidence", "error", "queue", "started_by", "schedule", "note", "class", "name",
  "dns_answers[]", "process.comm", "fs_type",
];
/** Of one event, most that are shown. */
export const MOST_FIELDS = 600;

const quote = (value: string) => `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

/** `field:value`, quoted where it must be; nothing where the language cannot say it. */
export function term(field: string, value: string): string | null {
  const words = field === "cmdline" || field === "path" || field === "text";
  if (words ? !WORD.test(value) : value === "" || value.endsWith("*")) return null;
  const said = !words && /^[\p{L}\p{N}\-_./@:%+]+$/u.test(value) ? value : quote(value);
  return `${field}:${said}`;
}

/** The query with one more term that must hold, or must not. */
export function narrowed(query: string, term: string, out: boolean): string {
  const before = query.trim();
  const one = out ? `-${term}` : term;
  if (before === "") return one;
  if (before.split(/\s+/).includes(one)) return before;
  // What is quoted or in brackets already gets brackets too; they change nothing there.
  return /\bOR\b/.test(before) ? `(${before}) ${one}` : `${before} ${one}`;
}

function found(name: string, plain: string, value: string, kind: string): string | null {
  if (name === "process.args") return term("cmdline", value);
  const field = FACTS[plain];
  // Of these kinds the index has the same name in another place.
  if (field === "action" && plain === "action" && kind === "scan") return null;
  if (plain === "state" && kind === "scan") return term("action", value);
  if (plain === "reason" && kind === "failure") return term("action", value);
  if (plain === "title" && kind === "model") return term("model", value);
  if (field) return term(field, value);
  if (PATHS.includes(plain)) return term("path", value);
  if (TEXTS.includes(plain) || (kind === "model" && plain.startsWith("evidence."))) return term("text", value);
  return null;
}

/** All values of an event that say something. */
export function fields(event: object): Field[] {
  const kind = String((event as { kind?: unknown }).kind ?? "");
  const list: Field[] = [];
  const add = (name: string, value: string) => {
    const plain = name.replace(/\[\d+\]/g, "[]");
    list.push({ name, value, term: found(name, plain, value, kind), file: isFile(plain, value) });
  };
  const walk = (value: unknown, name: string) => {
    if (list.length >= MOST_FIELDS || value === null || value === undefined || value === "") return;
    if (Array.isArray(value)) {
      if (name.endsWith(".args") || name === "args") add(name, value.map(String).join(" "));
      else value.forEach((one, index) => walk(one, `${name}[${index}]`));
    } else if (typeof value === "object") {
      for (const [key, inner] of Object.entries(value)) walk(inner, name === "" ? key : `${name}.${key}`);
    } else add(name, String(value));
  };
  // The event's own values come before those of who started it.
  const { parents, ...own } = event as { parents?: unknown };
  walk(own, "");
  walk(parents, "parents");
  return list;
}

/** Places of files: not every text that begins with a slash is one. */
function isFile(plain: string, value: string): boolean {
  return /(^|\.)(path|exe|script|from)$/.test(plain) && value.startsWith("/");
}

/** What stands before the cursor and may be completed. */
export interface Open {
  /** Where it begins, UTF-16. */
  from: number;
  /** The field, where one is named. */
  field: string | null;
  typed: string;
}

/** The term at the cursor; nothing within quotes. */
export function openTerm(query: string, cursor: number): Open | null {
  const before = query.slice(0, cursor);
  if ((before.replace(/\\./g, "").match(/"/g)?.length ?? 0) % 2 === 1) return null;
  const word = /[^\s()"]*$/.exec(before)?.[0] ?? "";
  const from = before.length - word.length + (word.startsWith("-") ? 1 : 0);
  const text = query.slice(from, cursor);
  const named = /^(\w+):(.*)$/.exec(text);
  return named ? { from: from + (named[1]?.length ?? 0) + 1, field: (named[1] ?? "").toLowerCase(), typed: named[2] ?? "" } : { from, field: null, typed: text };
}

/** The manager counts characters, the page halves of UTF-16 pairs. */
export const unitsOf = (query: string, characters: number) => [...query].slice(0, characters).join("").length;
