import { afterEach, describe, expect, it, vi } from "vitest";
import { everything, merge } from "./rows";

const things = (text: string, told: string) => [...text].map((id) => ({ id, told }));
const merged = (head: string, pages: string) => merge(things(head, "now"), things(pages, "then")).map(({ id, told }) => (told === "now" ? id : id.toUpperCase())).join("");

describe("the head of a list and what is loaded of it", () => {
  it("begins with what is new, each thing as it was told last", () => expect(merged("xab", "abcd")).toBe("xabCD"));
  it("keeps what left the list in its place", () => expect(merged("xac", "abcd")).toBe("xaBcD"));
  it("has what came back into the list in its place", () => expect(merged("xabc", "ac")).toBe("xabc"));
  it("is whole where the head reaches further", () => expect(merged("xabcd", "ab")).toBe("xabcd"));
});

describe("an export", () => {
  const pages = [things("abc", ""), things("def", ""), things("gh", "")];
  const asked = vi.fn((address: string) => {
    const at = Number(new URL(address, "https://manager").searchParams.get("cursor") ?? 0);
    const page = { items: pages[at], next: at < 2 ? String(at + 1) : null };
    return Promise.resolve(new Response(JSON.stringify(page)));
  });
  afterEach(() => asked.mockClear());
  const all = async (chosen?: string) => {
    vi.stubGlobal("fetch", asked);
    const found = await everything<{ id: string }>("/api/v1/alerts", {}, (one) => one.id, chosen === undefined ? undefined : new Set(chosen));
    vi.unstubAllGlobals();
    return found.map((one) => one.id).join("");
  };
  it("asks for all pages", async () => expect(await all()).toBe("abcdefgh"));
  it("ends where the chosen ones are found", async () => {
    expect(await all("bd")).toBe("bd");
    expect(asked).toHaveBeenCalledTimes(2);
  });
});
