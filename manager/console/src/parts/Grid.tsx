// The rows of a long list: only what is on the screen is drawn. Arrows move, Enter opens; rows are
// chosen by click, space and shift.
//
// Scrolling draws this alone: what stands above it knows nothing of where the reader is.
import { Checkbox } from "@mantine/core";
import { memo, useCallback, useEffect, useLayoutEffect, useRef, useState, type KeyboardEvent, type MouseEvent, type ReactNode, type RefObject } from "react";
import { useTranslation } from "react-i18next";
import { useNavigate } from "react-router";
import type { Rows } from "../api/rows";

export interface Column<T> {
  key: string;
  label: string;
  /** As in grid-template-columns. */
  width: string;
  cell: (row: T) => ReactNode;
  /** The same as text, for export. */
  text: (row: T) => string;
  /** Shown on a phone. */
  phone?: boolean;
  /** Not shown until it is chosen. */
  extra?: boolean;
}

interface Props<T> {
  label: string;
  rows: Rows<T>;
  columns: Column<T>[];
  open: (row: T) => string;
  /** Rows have a box and can be chosen. */
  choosable: boolean;
  chosen: Set<string>;
  setChosen: (change: (before: Set<string>) => Set<string>) => void;
  /** How many of the chosen are in the list. */
  picked: number;
  mark: ((row: T) => string) | undefined;
}

/** Of a row, and of the line of titles, px. */
const HEIGHT = 34;
const HEAD = 30;
/** Rows drawn beyond the screen on either side. */
const BEYOND = 4;
/** Rows before the end of what is loaded at which more is asked for. */
const AHEAD = 30;

interface Line<T> {
  row: T;
  index: number;
  columns: Column<T>[];
  grid: string;
  at: boolean;
  on: boolean;
  mark: string;
  /** What its box is called, where rows can be chosen. */
  box: string | undefined;
}

/** One row; drawn again when something of it changes, not when others come and go. */
const Line = memo(function Line<T extends { id: string }>({ row, index, columns, grid, at, on, mark, box }: Line<T>) {
  return (
    <div id={`row-${row.id}`} role="row" aria-rowindex={index + 2} aria-selected={on} data-index={index}
      className={`row ${at ? "at" : ""} ${on ? "on" : ""} ${mark}`}
      style={{ gridTemplateColumns: grid, top: index * HEIGHT, height: HEIGHT }}>
      {box !== undefined && (
        <span role="gridcell" className="cell check">
          <input type="checkbox" checked={on} readOnly tabIndex={-1} aria-label={box} />
        </span>
      )}
      {columns.map((column) => (
        <span key={column.key} role="gridcell" className="cell">
          {column.cell(row)}
        </span>
      ))}
    </div>
  );
}) as <T extends { id: string }>(line: Line<T>) => ReactNode;

/** The first row that is drawn, the one after the last, and how many at most. */
function useWindow(scroll: RefObject<HTMLDivElement | null>, count: number): [number, number, number] {
  const [[top, height], setPlace] = useState<[number, number]>([0, 0]);
  useLayoutEffect(() => {
    const box = scroll.current;
    if (!box) return;
    const look = () => {
      const now: [number, number] = [Math.floor(box.scrollTop / HEIGHT), Math.ceil(box.clientHeight / HEIGHT)];
      setPlace((before) => (before[0] === now[0] && before[1] === now[1] ? before : now));
    };
    const sizes = new ResizeObserver(look);
    sizes.observe(box);
    box.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      sizes.disconnect();
      box.removeEventListener("scroll", look);
    };
  }, [scroll]);
  // What was scrolled to may be gone from a list that is shorter now.
  const drawn = height + 1 + 2 * BEYOND;
  const first = Math.max(0, Math.min(top, count - height) - BEYOND);
  return [first, Math.min(count, first + drawn), drawn];
}

export function Grid<T extends { id: string }>({ label, rows, columns, open, choosable, chosen, setChosen, picked, mark }: Props<T>) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const [at, setAt] = useState(0);
  const anchor = useRef<number | null>(null);
  const scroll = useRef<HTMLDivElement>(null);
  const list = rows.rows;
  const grid = `${choosable ? "34px " : ""}${columns.map((column) => column.width).join(" ")}`;
  const [first, end, drawn] = useWindow(scroll, list.length);
  const { more, next, seen } = rows;
  useEffect(() => seen?.(list.slice(first, end)), [first, end, list, seen]);
  useEffect(() => {
    if (more && end >= list.length - AHEAD) next();
  }, [end, list.length, more, next]);

  const choose = useCallback(
    (index: number, range: boolean) => {
      // What is anchored must be read before the next choice moves it.
      const from = range ? (anchor.current ?? index) : index;
      anchor.current = index;
      setChosen((before) => {
        const next = new Set(before);
        const id = list[index]?.id;
        const on = range || (id !== undefined && !before.has(id));
        for (let i = Math.min(from, index); i <= Math.max(from, index); i += 1) {
          const one = list[i]?.id;
          if (one === undefined) continue;
          if (on) next.add(one);
          else next.delete(one);
        }
        return next;
      });
    },
    [list, setChosen],
  );

  const move = (to: number) => {
    const index = Math.max(0, Math.min(list.length - 1, to));
    setAt(index);
    const box = scroll.current;
    if (!box) return;
    // The head covers as much of the top as its own height.
    const room = box.clientHeight - HEAD;
    if (index * HEIGHT < box.scrollTop) box.scrollTop = index * HEIGHT;
    else if ((index + 1) * HEIGHT > box.scrollTop + room) box.scrollTop = (index + 1) * HEIGHT - room;
  };
  const keys = (event: KeyboardEvent) => {
    const page = Math.floor(((scroll.current?.clientHeight ?? 340) - HEAD) / HEIGHT) - 1;
    const steps: Record<string, number> = {
      ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1,
      PageDown: at + page, PageUp: at - page, Home: 0, End: list.length - 1,
    };
    const row = list[at];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) move(steps[event.key] ?? at);
    else if (event.key === "Enter" && row) void navigate(open(row));
    else if ((event.key === " " || event.key === "x") && choosable && row) choose(at, event.shiftKey);
    else if (event.key === "Escape" && chosen.size) setChosen(() => new Set());
    else return;
    event.preventDefault();
  };

  const pressed = (event: MouseEvent) => {
    const target = event.target as Element;
    const index = Number(target.closest<HTMLElement>("[data-index]")?.dataset.index);
    const row = list[index];
    if (!row) return;
    setAt(index);
    const box = target.closest(".check") !== null;
    if (choosable && (box || event.shiftKey || event.ctrlKey || event.metaKey)) choose(index, event.shiftKey);
    else if (!getSelection()?.toString()) void navigate(open(row));
  };
  return (
    <div className="table" role="grid" aria-label={label} aria-rowcount={more ? -1 : list.length + 1} tabIndex={0}
      onKeyDown={keys} ref={scroll} data-table aria-activedescendant={list[at] ? `row-${list[at].id}` : undefined}>
      <div className="row head" role="row" aria-rowindex={1} style={{ gridTemplateColumns: grid, height: HEAD }}>
        {choosable && (
          <span role="columnheader" className="cell check">
            <Checkbox size="xs" aria-label={t("table.choose")} checked={picked > 0 && picked === list.length}
              indeterminate={picked > 0 && picked < list.length} tabIndex={-1}
              onChange={(event) => {
                const all = event.currentTarget.checked;
                setChosen(() => new Set(all ? list.map((row) => row.id) : []));
              }} />
          </span>
        )}
        {columns.map((column) => (
          <span key={column.key} role="columnheader" className="cell">
            {column.label}
          </span>
        ))}
      </div>
      <div className="rows" role="presentation" style={{ height: list.length * HEIGHT }} onClick={pressed}>
        {list.slice(first, end).map((row, place) => (
          // A row that comes takes the elements of one that went: new ones cost more than new text.
          <Line key={(first + place) % drawn} row={row} index={first + place} columns={columns} grid={grid} at={first + place === at} on={chosen.has(row.id)}
            mark={mark?.(row) ?? ""} box={choosable ? t("table.choose") : undefined} />
        ))}
      </div>
    </div>
  );
}
