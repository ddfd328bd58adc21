// A channel as the fields of its form, and back, as the API describes it. Pure.
import type { Channel, ChannelBody, ChannelConfig } from "../../api/types";

type Of<K extends ChannelConfig["kind"]> = Extract<ChannelConfig, { kind: K }>;

export const KINDS = ["email", "webhook", "syslog"] as const satisfies readonly ChannelConfig["kind"][];

export interface Fields {
  kind: ChannelConfig["kind"];
  name: string;
  server: string;
  port: number;
  tls: NonNullable<Of<"email">["tls"]>;
  user: string;
  from: string;
  /** One a line. */
  to: string;
  url: string;
  format: NonNullable<Of<"webhook">["format"]> | NonNullable<Of<"syslog">["format"]>;
  transport: NonNullable<Of<"syslog">["transport"]>;
  authority: string;
  secret: string;
  level: string;
  window: number;
  enabled: boolean;
}

export function blank(kind: Fields["kind"] = "email"): Fields {
  return {
    kind, name: "", server: "", port: kind === "syslog" ? 6514 : 587, tls: "starttls", user: "", from: "", to: "", url: "",
    format: kind === "syslog" ? "cef" : "holdfast", transport: "tls", authority: "", secret: "", level: "medium", window: 30, enabled: true,
  };
}

export function fieldsOf(channel: Channel): Fields {
  const { config } = channel;
  const common = {
    ...blank(config.kind), name: channel.name, level: channel.min_level, window: channel.window_s, enabled: channel.enabled,
    authority: config.authority ?? "",
  };
  switch (config.kind) {
    case "email":
      return { ...common, server: config.server, port: config.port, tls: config.tls ?? "starttls", user: config.user ?? "", from: config.from, to: config.to.join("\n") };
    case "webhook":
      return { ...common, url: config.url, format: config.format ?? "holdfast" };
    case "syslog":
      return { ...common, server: config.server, port: config.port, format: config.format ?? "cef", transport: config.transport ?? "tls" };
  }
}

function config(fields: Fields): ChannelConfig {
  const authority = fields.authority.trim() || null;
  switch (fields.kind) {
    case "email": {
      const to = fields.to.split(/[\n,]/).map((one) => one.trim()).filter((one) => one !== "");
      return { kind: "email", server: fields.server, port: fields.port, tls: fields.tls, user: fields.user || null, from: fields.from, to, authority };
    }
    case "webhook":
      return { kind: "webhook", url: fields.url, format: fields.format === "ocsf" ? "ocsf" : "holdfast", authority };
    case "syslog":
      return { kind: "syslog", server: fields.server, port: fields.port, transport: fields.transport, format: fields.format === "holdfast" ? "cef" : fields.format, authority };
  }
}

/** A secret that is left empty stays as it is. */
export const body = (fields: Fields): ChannelBody => ({
  name: fields.name,
  config: config(fields),
  ...(fields.secret === "" ? {} : { secret: fields.secret }),
  enabled: fields.enabled,
  min_level: fields.level,
  window_s: fields.window,
});

/** Where it leads, in a word. */
export const placeOf = ({ config }: Channel): string =>
  config.kind === "webhook" ? config.url : config.kind === "email" ? config.to.join(", ") : `${config.server}:${config.port}`;
