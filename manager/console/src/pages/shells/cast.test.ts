import { describe, expect, it } from "vitest";
import { passed, read, sizeOf, times, typed } from "./cast";
import { pasted, Reader, straight } from "./text";

const HEAD = '{"version":2,"width":80,"height":24}';
const cast = (...lines: string[]) => read([HEAD, ...lines].join("\n"));

describe("a recording", () => {
  it("is read line by line, and what is none is passed over", () => {
    const found = cast('[0.5,"o","a"]', '[1,', '[2,"x","b"]', '["2","o","b"]', '[2,"i","ls\\r"]', "");
    expect(found?.moments.map((one) => one.kind)).toEqual(["o", "i"]);
    expect(read("")).toBeNull();
    expect(read("null")).toBeNull();
    expect(read('{"version":3}')).toBeNull();
  });
  it("has times that never go back and never reach for ever", () => {
    const found = cast('[5,"o","a"]', '[1,"i","b"]', '[1e308,"o","c"]');
    expect(found?.moments.map((one) => one.at)).toEqual([5, 5, 864_000]);
  });
  it("is shown without its pauses where they are skipped", () => {
    const found = cast('[1,"o","a"]', '[1.5,"o","b"]', '[601.5,"o","c"]');
    if (!found) throw new Error("no recording");
    expect(times(found, false)).toEqual([1, 1.5, 601.5]);
    expect(times(found, true)).toEqual([1, 1.5, 2.5]);
    expect([0, 1, 1.4, 1.5, 9e9].map((at) => passed(times(found, false), at))).toEqual([0, 1, 1, 2, 3]);
  });
  it("has one moment for what is shown at once", () => {
    const found = cast('[1,"o","a"]', '[1.005,"o","b"]', '[1.006,"i","x"]', '[1.007,"o","c"]', '[2,"o","d"]');
    expect(found?.moments.map((one) => one.text)).toEqual(["ab", "x", "c", "d"]);
    expect(found?.typed).toEqual([1]);
  });
  it("tells what was typed by a moment", () => {
    const found = cast('[1,"i","ls"]', '[2,"o","x"]', '[3,"i","\\r"]', '[4,"i","later"]');
    if (!found) throw new Error("no recording");
    expect(typed(found, 3)).toBe("ls\r");
    expect(typed(found, 4, 6)).toBe("\rlater");
  });
  it("has sizes that are numbers", () => {
    expect(sizeOf("100x40")).toEqual([100, 40]);
    for (const text of ["", "100", "-1x5", "1e9x1", "999999x1"]) expect(sizeOf(text)).toBeNull();
  });
});

describe("text of a terminal", () => {
  it("turns nothing round", () => expect(straight("a\u202eb\u2066c")).toBe("a\ufffdb\ufffdc"));
  it("is put together where it was cut", () => {
    const reader = new Reader();
    const euro = new TextEncoder().encode("€\u202e");
    const parts = [euro.slice(0, 1), euro.slice(1, 4), euro.slice(4)];
    expect(parts.map((part) => reader.read(part.buffer)).join("")).toBe("€\ufffd");
  });
  it("that is pasted begins no escape sequence", () => {
    expect(pasted("a\u001b[201~\u009b\u0003b\r\n\tc")).toBe("a[201~b\r\n\tc");
  });
});
