// A recording: an asciicast (version 2), as the manager writes it, and its moments on a line of time.
//
// What stands in it was chosen by the host that was attacked: sizes, times and texts are bounded, and
// a line that is none is passed over.
import { straight } from "./text";

export interface Moment {
  /** Seconds since its beginning. */
  at: number;
  kind: "o" | "i" | "r" | "m";
  text: string;
}

export interface Cast {
  size: [number, number];
  moments: Moment[];
  /** Which of them were typed. */
  typed: number[];
}

/** Bytes of a recording that is played here; a longer one can be saved. */
export const LARGEST = 32 * 1_048_576;
/** A pause that is longer is cut to this where pauses are skipped, seconds. */
export const IDLE = 1;
/** The longest time that a recording may claim, seconds: a shell is open for a day at most. */
const AGES = 10 * 86_400;

/** What is shown within this time is one moment, seconds. */
const AT_ONCE = 0.01;
/** Moments of one recording; what is shown beyond them belongs to the last one. */
const MOST = 500_000;

const KINDS = ["o", "i", "r", "m"];

/** Nothing where it is no recording. */
export function read(text: string): Cast | null {
  const lines = text.split("\n");
  let head: { version?: unknown; width?: unknown; height?: unknown };
  try {
    head = JSON.parse(lines[0] ?? "") as typeof head;
  } catch {
    return null;
  }
  if (head?.version !== 2) return null;
  const moments: Moment[] = [];
  const typed: number[] = [];
  let last = 0;
  for (const line of lines.slice(1)) {
    try {
      const [at, kind, said] = JSON.parse(line) as [unknown, unknown, unknown];
      if (typeof at !== "number" || typeof kind !== "string" || typeof said !== "string" || !KINDS.includes(kind)) continue;
      // Time does not go back.
      last = Math.max(last, Math.min(AGES, at));
      const before = moments.at(-1);
      const full = moments.length >= MOST;
      if (kind === "o" && before?.kind === "o" && (full || last - before.at < AT_ONCE)) before.text += straight(said);
      else if (!full || kind === "o") {
        if (kind === "i") typed.push(moments.length);
        moments.push({ at: last, kind: kind as Moment["kind"], text: kind === "o" ? straight(said) : said });
      }
    } catch {
      // The manager was cut off in the middle of it.
    }
  }
  return { size: [Number(head.width) || 80, Number(head.height) || 24], moments, typed };
}

/** When each moment is shown, seconds; `skip` cuts long pauses. */
export function times(cast: Cast, skip: boolean): number[] {
  let now = 0;
  let before = 0;
  return cast.moments.map(({ at }) => {
    const pause = at - before;
    before = at;
    now += skip ? Math.min(pause, IDLE) : pause;
    return now;
  });
}

/** How many moments come before this time, or at it. */
export function passed(line: number[], time: number): number {
  let [from, until] = [0, line.length];
  while (from < until) {
    const middle = (from + until) >> 1;
    if ((line[middle] ?? 0) <= time) from = middle + 1;
    else until = middle;
  }
  return from;
}

/** `100x40`, as a size. */
export function sizeOf(text: string): [number, number] | null {
  const [, columns, rows] = /^(\d{1,5})x(\d{1,5})$/.exec(text) ?? [];
  return columns && rows ? [Number(columns), Number(rows)] : null;
}

/** What was typed last, before a moment; no more than fits a line. */
export function typed(cast: Cast, upTo: number, most = 160): string {
  let text = "";
  for (let place = passed(cast.typed, upTo - 1) - 1; place >= 0 && text.length < most; place -= 1) {
    const moment = cast.moments[cast.typed[place] ?? 0];
    text = (moment?.text ?? "").slice(-most) + text;
  }
  return text.slice(-most);
}
