import { describe, expect, it } from "vitest";
import { renewed } from "./lists";

const rows = (text: string) => [...text].map((id) => ({ id }));
const seen = (head: string, more: boolean, loaded: string) => renewed(rows(head), more, rows(loaded)).map((row) => row.id).join("");

describe("a list that is kept current by its first page", () => {
  it("gets what is new and keeps what is below", () => expect(seen("xab", true, "abcd")).toBe("xabcd"));
  it("loses what left it", () => {
    expect(seen("acd", true, "abcdef")).toBe("acdef");
    expect(seen("ac", false, "abc")).toBe("ac");
    expect(seen("", false, "abc")).toBe("");
  });
  it("ends with the first page where that reaches further", () => expect(seen("acd", true, "abc")).toBe("acd"));
});
