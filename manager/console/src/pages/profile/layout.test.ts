import { expect, test } from "vitest";
import { layout } from "./layout";

const node = (pid: number, parent?: number) => ({
  process: { key: { pid, start_ns: 1 } },
  parent: parent === undefined ? null : { pid: parent, start_ns: 1 },
});

test("a parent stands in the middle of its children, and each has a row of its own", () => {
  const placed = layout([node(1), node(2, 1), node(3, 2), node(4, 2), node(5, 1)], new Set());
  expect(placed.map((one) => [one.id, one.depth, one.row])).toEqual([
    ["1-1", 0, 1.25], ["2-1", 1, 0.5], ["3-1", 2, 0], ["4-1", 2, 1], ["5-1", 1, 2],
  ]);
});

test("what is below a folded process is left out, and counted", () => {
  const placed = layout([node(1), node(2, 1), node(3, 2), node(4, 2)], new Set(["2-1"]));
  expect(placed.map((one) => [one.id, one.children, one.folded])).toEqual([["1-1", 1, false], ["2-1", 2, true]]);
});

test("a process whose parent is not there begins a tree of its own", () => {
  expect(layout([node(1), node(9, 8)], new Set()).map((one) => [one.id, one.depth])).toEqual([["1-1", 0], ["9-1", 0]]);
});
