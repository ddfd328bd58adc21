import { describe, expect, it } from "vitest";
import { merge } from "../api/rows";
import { commandLine, csvCell, cut, pieces, visible } from "./visible";

describe("text of others", () => {
  it("shows what turns the order of letters round", () => {
    expect(visible("invoice\u202Efdp.exe")).toBe("invoice\\u{202e}fdp.exe");
    expect(visible("a\u0000\u001b[31mb\u200b")).toBe("a\\u{0}\\u{1b}[31mb\\u{200b}");
    expect(visible("\u{e0041}x\ufeff")).toBe("\\u{e0041}x\\u{feff}");
  });
  it("leaves letters of all languages as they are", () => {
    for (const text of ["日本語ファイル.txt", "naïve — “x”", "emoji 🛡 ok"]) expect(visible(text)).toBe(text);
  });
  it("marks only what was written out", () => {
    expect(pieces("a\u202eb")).toEqual([
      { text: "a", odd: false },
      { text: "\\u{202e}", odd: true },
      { text: "b", odd: false },
    ]);
    expect(pieces("")).toEqual([]);
    expect(pieces("a\nb")).toHaveLength(3);
    expect(pieces("a\n\tb", true)).toEqual([{ text: "a\n\tb", odd: false }]);
  });
  it("cuts at a character", () => {
    expect(cut("🛡🛡🛡", 3)).toBe("🛡");
    expect(cut("abc", 3)).toBe("abc");
  });
  it("quotes arguments as a shell would need them", () => {
    expect(commandLine(["tcpdump", "-c", "5", "a b", "it's", ""])).toBe("tcpdump -c 5 'a b' 'it'\\''s' ''");
  });
  it("exports no formula", () => {
    expect(csvCell('=HYPERLINK("x")')).toBe(`"'=HYPERLINK(""x"")"`);
    expect(csvCell("a,b")).toBe('"a,b"');
    expect(csvCell("plain")).toBe("plain");
  });
});

describe("rows", () => {
  const thing = (id: string, n = 0) => ({ id, n });
  it("shows what is new first, each thing once and as told last", () => {
    const merged = merge([thing("c", 1), thing("b", 1)], [thing("b"), thing("a")]);
    expect(merged).toEqual([thing("c", 1), thing("b", 1), thing("a")]);
  });
  it("has what is there while the head is empty", () => {
    expect(merge([], [thing("a")])).toEqual([thing("a")]);
    expect(merge([thing("a")], [])).toEqual([thing("a")]);
  });
});
