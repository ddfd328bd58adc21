// An event in one line, from whatever its kind has. The words are the host's.
import type { Scan, StoredEvent } from "../../api/types";
import { commandLine } from "../../parts/visible";

interface Told {
  [field: string]: unknown;
}

const text = (value: unknown) => (typeof value === "string" || typeof value === "number" ? String(value) : "");
const joined = (...parts: unknown[]) => parts.map(text).filter(Boolean).join(" ");

export function summary(stored: StoredEvent): string {
  const event = stored.event;
  const told = event as unknown as Told;
  const { process } = event;
  const command = process?.args?.length ? commandLine(process.args) : (process?.exe ?? process?.comm ?? "");
  switch (stored.kind) {
    case "malware":
      return joined(event.signature?.name, event.path);
    case "model":
      return [event.title, command].filter(Boolean).join(": ");
    case "exec":
      return command;
    case "network":
      return `${joined(told.action, told.dns_name, told.remote_address)}${told.remote_port ? `:${text(told.remote_port)}` : ""} ${command}`;
    case "activity":
      return joined(told.activity, command);
    case "scan": {
      const scan = event as unknown as Scan;
      return joined(scan.state, scan.scope, ...(scan.places ?? []));
    }
    case "proof":
      return joined(told.capability, told.evidence);
    case "loss":
      return joined(told.queue, told.count);
    default:
      return joined(told.action, told.target, event.path, told.mount, told.capability, event.reason, told.version, command) || stored.kind;
  }
}
