// What is said of a process of the tree. Pure.
import type { Deed, ProfileNode } from "../../api/types";
import { commandLine } from "../../parts/visible";

export type DeedKind = "start" | "file" | "connection" | "activity" | "detection";

/** Its command line, or what else names it. */
export const line = ({ process }: ProfileNode) =>
  process.args.length ? commandLine(process.args) : process.exe || process.comm;

/** The last part of what runs. */
export function program({ process }: ProfileNode): string {
  const path = process.script ?? process.exe;
  return path.slice(path.lastIndexOf("/") + 1) || process.comm || "?";
}

/** Whether a process had been seen by then. What has no time of its own is above others, and was. */
export const seen = (node: ProfileNode, until: number | null) =>
  until === null || node.first_ms === null || node.first_ms === undefined || node.first_ms <= until;

export const deeds = (node: ProfileNode, until: number | null): Deed[] =>
  until === null ? node.items : node.items.filter((item) => item.time_ms <= until);

/** How much it did by then. Of a moment only listed events can be counted. */
export function counted(node: ProfileNode, until: number | null): Record<Exclude<DeedKind, "start">, number> {
  if (until === null) {
    const { files, connections, activities, detections } = node.counts;
    return { file: files, connection: connections, activity: activities, detection: detections };
  }
  const counts = { file: 0, connection: 0, activity: 0, detection: 0 };
  for (const item of deeds(node, until)) {
    if (item.deed in counts) counts[item.deed as keyof typeof counts] += item.count;
  }
  return counts;
}
