import { expect, test } from "vitest";
import type { Channel } from "../../api/types";
import { blank, body, fieldsOf } from "./channel";

test("what a channel is goes into the form and comes back as it was", () => {
  const configs: Channel["config"][] = [
    { kind: "email", server: "mail", port: 465, tls: "tls", user: "holdfast", from: "a@b", to: ["x@y", "z@y"], authority: null },
    { kind: "webhook", url: "https://hook", format: "ocsf", authority: "PEM" },
    { kind: "syslog", server: "log", port: 514, transport: "udp", format: "ecs", authority: null },
  ];
  for (const config of configs) {
    const channel = { name: "on call", config, enabled: false, min_level: "high", window_s: 7 } as Channel;
    expect(body(fieldsOf(channel))).toEqual({ name: "on call", config, enabled: false, min_level: "high", window_s: 7 });
  }
});

test("receivers stand a line each, and an empty secret is left out", () => {
  const sent = body({ ...blank(), to: " a@b \n\nc@d, e@f" });
  expect(sent.config).toMatchObject({ to: ["a@b", "c@d", "e@f"] });
  expect("secret" in sent).toBe(false);
  expect(body({ ...blank(), secret: "s" }).secret).toBe("s");
});
