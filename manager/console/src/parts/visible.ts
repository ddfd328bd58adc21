// Text that somebody else chose, made safe to look at: what a reader would not see, or what would
// change the order of what he sees, is written out as the manager's own messages do, `\u{202e}`.

// Controls, soft hyphen, marks of direction, joiners and spaces without width, line separators,
// interlinear and tag characters, variation selectors, unpaired surrogates.
const ODD =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff]|[\u{e0000}-\u{e0fff}]/gu;

export interface Piece {
  text: string;
  odd: boolean;
}

const written = (character: string) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;

/** The same text with what is not seen written out. */
export const visible = (text: string) => text.replace(ODD, written);

/** Whether all of it is seen as it is. */
export const harmless = (text: string) => text.search(ODD) < 0;

/** As [`visible`], in pieces, so that what was written out can be marked; lines stay lines where wanted. */
export function pieces(text: string, lines = false): Piece[] {
  const found: Piece[] = [];
  let from = 0;
  for (const match of text.matchAll(ODD)) {
    if (lines && (match[0] === "\n" || match[0] === "\t")) continue;
    if (match.index > from) found.push({ text: text.slice(from, match.index), odd: false });
    found.push({ text: written(match[0]), odd: true });
    from = match.index + match[0].length;
  }
  if (from < text.length) found.push({ text: text.slice(from), odd: false });
  return found;
}

/** Cuts at a character, never in the middle of one. */
export function cut(text: string, most: number): string {
  return text.length <= most ? text : [...text.slice(0, most)].slice(0, -1).join("");
}

/** The arguments as one line, quoted where a shell would need it. */
export function commandLine(args: string[]): string {
  return args
    .map((one) => (/^[\p{L}\p{N}\-_./:=,@%+]+$/u.test(one) ? one : `'${one.replaceAll("'", "'\\''")}'`))
    .join(" ");
}

/** A cell of CSV (RFC 4180). A spreadsheet takes none for a formula. */
export function csvCell(value: string): string {
  const plain = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}
