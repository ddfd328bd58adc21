// Where the processes of a tree stand: a generation a column, each below its parent's first child,
// parents in the middle of their children. Pure.
import type { ProcessKey } from "../../api/types";

export interface Planted {
  parent?: ProcessKey | null;
  process: { key: ProcessKey };
}

export interface Placed<T> {
  node: T;
  id: string;
  parent: string | null;
  depth: number;
  /** In rows; may end in a half. */
  row: number;
  /** All children, shown or not. */
  children: number;
  folded: boolean;
}

export const keyOf = (key: ProcessKey) => `${key.pid}-${key.start_ns}`;

/** In the order of reading: each process before its children. Those below a folded one are left out. */
export function layout<T extends Planted>(nodes: T[], folded: ReadonlySet<string>): Placed<T>[] {
  const below = new Map<string | null, T[]>();
  const known = new Set(nodes.map((node) => keyOf(node.process.key)));
  for (const node of nodes) {
    const parent = node.parent ? keyOf(node.parent) : null;
    const at = parent !== null && known.has(parent) ? parent : null;
    below.set(at, [...(below.get(at) ?? []), node]);
  }
  const placed: Placed<T>[] = [];
  let rows = 0;
  const place = (node: T, parent: string | null, depth: number): Placed<T> => {
    const id = keyOf(node.process.key);
    const children = below.get(id) ?? [];
    const one: Placed<T> = { node, id, parent, depth, row: 0, children: children.length, folded: folded.has(id) };
    placed.push(one);
    const shown = one.folded ? [] : children.map((child) => place(child, id, depth + 1));
    const [first] = shown;
    const last = shown.at(-1);
    one.row = first && last ? (first.row + last.row) / 2 : rows++;
    return one;
  };
  for (const node of below.get(null) ?? []) place(node, null, 0);
  return placed;
}
