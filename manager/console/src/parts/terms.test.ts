import { describe, expect, it } from "vitest";
import { fields, narrowed, openTerm, term, unitsOf } from "./terms";

describe("terms of a query", () => {
  it("are quoted where the language needs it", () => {
    expect(term("host", "web1")).toBe("host:web1");
    expect(term("user", 'a "b" \\c')).toBe('user:"a \\"b\\" \\\\c"');
    expect(term("exe", "/usr/bin/a b")).toBe('exe:"/usr/bin/a b"');
    expect(term("user", "(OR)")).toBe('user:"(OR)"');
  });
  it("are not made where the language cannot say it", () => {
    expect(term("user", "")).toBeNull();
    expect(term("user", "a*")).toBeNull();
    expect(term("cmdline", "-- ::")).toBeNull();
  });
  it("narrow a query without changing what it means", () => {
    expect(narrowed("", "user:a", false)).toBe("user:a");
    expect(narrowed("user:a OR user:b", "kind:exec", true)).toBe("(user:a OR user:b) -kind:exec");
    expect(narrowed("user:a", "user:a", false)).toBe("user:a");
  });
});

describe("fields of an event", () => {
  const event = {
    kind: "exec", host: "web1", process: { key: { pid: 7, start_ns: 1 }, exe: "/usr/bin/tcpdump", args: ["tcpdump", "-c", "5"], cwd: "/root" },
  };
  const named = new Map(fields(event).map((one) => [one.name, one]));
  it("have the term that finds them", () => {
    expect(named.get("process.key.pid")?.term).toBe("pid:7");
    expect(named.get("process.args")?.term).toBe('cmdline:"tcpdump -c 5"');
    expect(named.get("process.cwd")?.term).toBeNull();
  });
  it("tell which of them is a file", () => {
    expect(named.get("process.exe")?.file).toBe(true);
    expect(named.get("process.args")?.file).toBe(false);
  });
});

describe("completion", () => {
  it("knows the term at the cursor", () => {
    expect(openTerm("host:we", 7)).toEqual({ from: 5, field: "host", typed: "we" });
    expect(openTerm("kind:exec -us", 13)).toEqual({ from: 11, field: null, typed: "us" });
    expect(openTerm('cmdline:"a b', 12)).toBeNull();
    expect(openTerm("", 0)).toEqual({ from: 0, field: null, typed: "" });
  });
  it("counts as the manager counts", () => expect(unitsOf("🛡 hots:b", 2)).toBe(3));
});
