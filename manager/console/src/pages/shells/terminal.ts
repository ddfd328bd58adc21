// A terminal emulator for what an attacked host shows, live or recorded.
//
// INVARIANT: nothing that a host shows makes this terminal do more than show it. It answers no
// question of the host, so that what is sent (and recorded as typed) is what somebody typed; it knows
// no links, no titles, no clipboard, no other colours; it takes no report of the mouse; and what
// turns the order of letters round is shown as a sign that stands for it.
import "@xterm/xterm/css/xterm.css";
import { Terminal } from "@xterm/xterm";

/** Columns and rows, at most: each cell costs memory. */
const WIDEST = 500;
const HIGHEST = 200;
/** Lines that can be scrolled back to. */
const BACK = 5_000;

/** What the emulator is asked for, and would answer or do: all of it is passed over. */
const QUESTIONS = [
  { final: "c" }, { prefix: ">", final: "c" }, { prefix: "=", final: "c" },
  { final: "n" }, { prefix: "?", final: "n" },
  { intermediates: "$", final: "p" }, { prefix: "?", intermediates: "$", final: "p" },
  { final: "t" }, { prefix: ">", final: "q" }, { prefix: "?", final: "u" },
];
const STRINGS = [{ intermediates: "$", final: "q" }, { intermediates: "+", final: "q" }];
/** Titles, colours, the folder, links, notifications, the clipboard. */
const ORDERS = [0, 1, 2, 4, 5, 7, 8, 9, 10, 11, 12, 52, 104, 110, 111, 112, 133, 777, 1337];
/** Modes that report the mouse and the focus. */
const REPORTS = [9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016];

const THEME = {
  background: "#14181d", foreground: "#dfe4ea", cursor: "#7db6ea", cursorAccent: "#14181d", selectionBackground: "#2f5d8a",
  black: "#2c333c", red: "#ff8a80", green: "#7ad19a", yellow: "#f2b263", blue: "#7db6ea", magenta: "#d3a4e8", cyan: "#78cfd6", white: "#dfe4ea",
  brightBlack: "#98a3b1", brightRed: "#ffb0a9", brightGreen: "#a5e3bb", brightYellow: "#f8cf9a", brightBlue: "#a9cff3", brightMagenta: "#e4c7f2",
  brightCyan: "#a8e3e8", brightWhite: "#ffffff",
};

// The emulator writes a colour of a cell into the attribute `style`, which the page's policy forbids;
// by the object model the same is allowed.
HTMLSpanElement.prototype.setAttribute = function (name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
};

/** Columns or rows as this terminal takes them. */
export const bounded = (columns: number, rows: number): [number, number] => {
  const within = (count: number, most: number) => (Number.isFinite(count) ? Math.max(1, Math.min(most, Math.floor(count))) : 1);
  return [within(columns, WIDEST), within(rows, HIGHEST)];
};

interface Wanted {
  place: HTMLElement;
  size: [number, number];
  label: string;
  /** What somebody types or pastes; without it nothing can be typed. */
  typed?: (text: string) => void;
}

/** Puts a terminal into its place. */
export function terminal({ place, size, label, typed }: Wanted): Terminal {
  const [cols, rows] = bounded(...size);
  const made = new Terminal({
    cols, rows, scrollback: BACK, theme: THEME, minimumContrastRatio: 4.5, disableStdin: !typed,
    fontFamily: 'ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace', fontSize: 13, cursorBlink: false, allowProposedApi: false,
    windowOptions: {}, linkHandler: { activate: () => undefined },
  });
  const never = () => true;
  for (const id of QUESTIONS) made.parser.registerCsiHandler(id, never);
  for (const id of STRINGS) made.parser.registerDcsHandler(id, never);
  for (const id of ORDERS) made.parser.registerOscHandler(id, never);
  for (const final of ["h", "l"]) {
    made.parser.registerCsiHandler({ prefix: "?", final }, (params) => params.some((one) => REPORTS.includes(Array.isArray(one) ? (one[0] ?? 0) : one)));
  }
  // Its style sheets are let in by the number of this answer, which they must have before they are in.
  const holder = document.createElement("div");
  holder.className = "screen-holder";
  made.open(holder);
  const nonce = document.querySelector<HTMLMetaElement>('meta[name="csp-nonce"]')?.content ?? "";
  for (const style of holder.querySelectorAll("style")) style.nonce = nonce;
  place.append(holder);
  made.textarea?.setAttribute("aria-label", label);
  if (typed) made.onData(typed);
  // Nothing is typed: all keys are the page's, Tab too.
  else made.attachCustomKeyEventHandler(() => false);
  return made;
}
