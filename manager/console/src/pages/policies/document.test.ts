import { describe, expect, it } from "vitest";
import { changed, isOff, listOf, put, readDocument, respond, responsesOf, scheduled, schedulesOf, turn } from "./document";

const TEXT = `# ours
[on_access]
mode = "block" # as agreed

[[scan.schedule]] # nightly
name = "nightly"
kind = "full"
every = "3 days at 01:00"

[models]
off = ["Cron"]
[models.response]
"Data Encrypted for Impact" = ["kill", "deny"]
`;
const MODEL = { id: "1f2e", title: "Network \"Sniffing\" (tcpdump)" };

describe("a document", () => {
  it("keeps comments, order and what no form knows", () => {
    const text = changed(TEXT, (document) => put(document, ["on_access", "mode"], "detect"));
    expect(text).toBe(TEXT.replace('"block"', '"detect"'));
  });
  it("gets tables that it has not, and loses keys that are taken away", () => {
    const made = changed("", (document) => put(document, ["on_access", "exclude", "paths"], ["/srv/cache/**"]));
    expect(readDocument(made ?? "")).toEqual({ on_access: { exclude: { paths: ["/srv/cache/**"] } } });
    const gone = changed(made ?? "", (document) => put(document, ["on_access", "exclude", "paths"], undefined));
    expect(gone).not.toContain("paths");
    expect(changed("", (document) => put(document, ["quarantine", "max_size"], undefined))?.trim()).toBe("");
  });
  it("gets one more schedule, and loses one", () => {
    const more = changed(TEXT, (document) => put(document, ["scan", "schedule"], [...schedulesOf(document), { name: "noon", kind: "quick", cron: "0 12 * * *" }]));
    expect(more).toContain("# nightly");
    expect(schedulesOf(readDocument(more ?? "") ?? {}).map((one) => one.name)).toEqual(["nightly", "noon"]);
    const less = changed(more ?? "", (document) => put(document, ["scan", "schedule"], schedulesOf(document).slice(1)));
    expect(schedulesOf(readDocument(less ?? "") ?? {}).map((one) => one.name)).toEqual(["noon"]);
    expect(scheduled("", { name: "a", kind: "full", catch_up: true })).toBe('[[scan.schedule]]\nname = "a"\nkind = "full"\ncatch_up = true\n');
    for (const before of [TEXT, "[scan]\nschedule = [{ name = \"x\" }]\n", "[scan]\ncpu_share = 5"]) {
      const names = schedulesOf(readDocument(before) ?? {}).map((one) => one.name);
      expect(schedulesOf(readDocument(scheduled(before, { name: "a" }) ?? "") ?? {}).map((one) => one.name)).toEqual([...names, "a"]);
    }
  });
  it("turns models off and on, and says what follows", () => {
    const off = changed(TEXT, (document) => turn(document, MODEL, true)) ?? "";
    expect(isOff(readDocument(off) ?? {}, MODEL)).toBe(true);
    expect(isOff(readDocument(off) ?? {}, { id: "x", title: "Cron" })).toBe(true);
    expect(changed("# a\n", (document) => turn(document, { id: "x", title: "Cron" }, true))).toContain('off = ["Cron"]');
    const on = changed(off, (document) => turn(document, MODEL, false)) ?? "";
    expect(readDocument(on)).toEqual(readDocument(TEXT));
    const answer = changed(TEXT, (document) => respond(document, MODEL, ["alert", "kill"])) ?? "";
    expect(responsesOf(readDocument(answer) ?? {}, MODEL)).toEqual(["alert", "kill"]);
    expect(answer).toContain("# as agreed");
  });
  it("that is no TOML is left alone", () => {
    expect(readDocument("[a\nx=")).toBeNull();
    expect(changed("[a\nx=", () => undefined)).toBeNull();
  });
  it("whose values are not what a form expects breaks no form", () => {
    const odd = readDocument('models = 3\n[scan]\nschedule = "x"\n') ?? {};
    expect([isOff(odd, MODEL), responsesOf(odd, MODEL), schedulesOf(odd)]).toEqual([false, [], []]);
  });
  it("takes hostile names as text", () => {
    const name = 'a"]\n[state_dir]\nx = "\u202e<img src=x>';
    const text = changed("", (document) => put(document, ["models", "off"], [name])) ?? "";
    expect(readDocument(text)).toEqual({ models: { off: [name] } });
  });
  it("has lists as lines", () => {
    expect(listOf(" /a \n\n/b")).toEqual(["/a", "/b"]);
    expect(listOf(" \n")).toBeUndefined();
  });
});
