// What a host's terminal shows, before the emulator gets it.

/** What changes the order in which letters are shown. */
const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** A sign in place of each of those. */
export const straight = (text: string) => text.replace(TURNS, "\ufffd");

/** Bytes as they come; a letter that is cut waits for its rest. */
export class Reader {
  private decoder = new TextDecoder();

  read(bytes: ArrayBuffer): string {
    return straight(this.decoder.decode(bytes, { stream: true }));
  }
}

/** Nothing of what is pasted begins an escape sequence, or ends the brackets that a paste has. */
export const pasted = (text: string) => text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g, "");
