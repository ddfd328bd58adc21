// A long list: only what is on the screen is drawn. Columns are chosen by the reader and kept in
// this browser; rows are chosen by click, space and shift; arrows move, Enter opens.
import { ActionIcon, Checkbox, Menu } from "@mantine/core";
import { useVirtualizer } from "@tanstack/react-virtual";
import { memo, useCallback, useEffect, useMemo, useRef, useState, type KeyboardEvent, type MouseEvent, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { useNavigate } from "react-router";
import type { Rows } from "../api/rows";
import { Icon } from "./Icon";
import { Failure, useReason, Waiting } from "./Notice";
import { csvCell } from "./visible";
import { notifications } from "@mantine/notifications";

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
  name: string;
  label: string;
  rows: Rows<T>;
  columns: Column<T>[];
  open: (row: T) => string;
  empty: ReactNode;
  /** What can be done with chosen rows; without it none are chosen. */
  bulk?: (chosen: T[], clear: () => void) => ReactNode;
  /** Marks a row, e.g. as one that needs somebody. */
  mark?: (row: T) => string;
  tools?: ReactNode;
}

const HEIGHT = 34;
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

function useHidden<T>(name: string, columns: Column<T>[]): [Set<string>, (key: string) => void] {
  const kept = `holdfast.columns.${name}`;
  const [hidden, setHidden] = useState<Set<string>>(() => {
    try {
      const list: unknown = JSON.parse(localStorage.getItem(kept) ?? "");
      if (Array.isArray(list)) return new Set(list.map(String));
    } catch {
      // Nothing was kept, or nothing of ours.
    }
    return new Set(columns.filter((column) => column.extra).map((column) => column.key));
  });
  const toggle = (key: string) =>
    setHidden((before) => {
      const next = new Set(before);
      if (!next.delete(key)) next.add(key);
      localStorage.setItem(kept, JSON.stringify([...next]));
      return next;
    });
  return [hidden, toggle];
}

function usePhone(): boolean {
  const [phone, setPhone] = useState(() => matchMedia("(max-width: 720px)").matches);
  useEffect(() => {
    const watch = matchMedia("(max-width: 720px)");
    const changed = () => setPhone(watch.matches);
    watch.addEventListener("change", changed);
    return () => watch.removeEventListener("change", changed);
  }, []);
  return phone;
}

function save(name: string, kind: string, text: string) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export function Table<T extends { id: string }>({ name, label, rows, columns, open, empty, bulk, mark, tools }: Props<T>) {
  const { t } = useTranslation();
  const reason = useReason();
  const navigate = useNavigate();
  const phone = usePhone();
  const [hidden, toggle] = useHidden(name, columns);
  const [chosen, setChosen] = useState<Set<string>>(new Set());
  const [at, setAt] = useState(0);
  const anchor = useRef<number | null>(null);
  const scroll = useRef<HTMLDivElement>(null);
  const list = rows.rows;
  const shown = useMemo(
    () => columns.filter((column) => (phone ? column.phone : !hidden.has(column.key))),
    [columns, hidden, phone],
  );
  const grid = `${bulk && !phone ? "34px " : ""}${shown.map((column) => column.width).join(" ")}`;

  const virtual = useVirtualizer({
    count: list.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => HEIGHT,
    overscan: 4,
  });
  const items = virtual.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const last = items.at(-1)?.index ?? 0;
  const { more, next, seen } = rows;
  useEffect(() => seen?.(list.slice(first, last + 1)), [first, last, list, seen]);
  useEffect(() => {
    if (more && last >= list.length - AHEAD) next();
  }, [last, list.length, more, next]);

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
    [list],
  );

  const move = (to: number) => {
    const index = Math.max(0, Math.min(list.length - 1, to));
    setAt(index);
    virtual.scrollToIndex(index);
  };
  const keys = (event: KeyboardEvent) => {
    const page = Math.floor((scroll.current?.clientHeight ?? 340) / HEIGHT) - 1;
    const steps: Record<string, number> = {
      ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1,
      PageDown: at + page, PageUp: at - page, Home: 0, End: list.length - 1,
    };
    const row = list[at];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) move(steps[event.key] ?? at);
    else if (event.key === "Enter" && row) void navigate(open(row));
    else if ((event.key === " " || event.key === "x") && bulk && row) choose(at, event.shiftKey);
    else if (event.key === "Escape" && chosen.size) setChosen(new Set());
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
    if (bulk && (box || event.shiftKey || event.ctrlKey || event.metaKey)) choose(index, event.shiftKey);
    else if (!getSelection()?.toString()) void navigate(open(row));
  };

  const picked = useMemo(() => (chosen.size ? list.filter((row) => chosen.has(row.id)) : []), [chosen, list]);
  const clear = () => setChosen(new Set());
  const exportAll = async (kind: "csv" | "json") => {
    try {
      const all = await rows.all(picked.length ? picked : undefined);
      if (kind === "json") save(`${name}.json`, "application/json", JSON.stringify(all, null, 1));
      else {
        const lines = [columns.map((column) => csvCell(column.label)), ...all.map((row) => columns.map((column) => csvCell(column.text(row))))];
        save(`${name}.csv`, "text/csv", `${lines.map((line) => line.join(",")).join("\r\n")}\r\n`);
      }
    } catch (error) {
      notifications.show({ color: "red", message: reason(error) });
    }
  };

  return (
    <div className="table-frame">
      <div className="toolbar">
        {tools}
        <span className="grow" />
        <span className="dim count" aria-live="polite">
          {rows.loading ? "" : t(more ? "table.atLeast" : "table.rows", { count: list.length })}
        </span>
        {!phone && (
          <Menu closeOnItemClick={false} position="bottom-end">
            <Menu.Target>
              <ActionIcon variant="default" size="md" aria-label={t("table.columns")}>
                <Icon name="columns" />
              </ActionIcon>
            </Menu.Target>
            <Menu.Dropdown>
              <Menu.Label>{t("table.columns")}</Menu.Label>
              {columns.map((column) => (
                <Menu.Item key={column.key} onClick={() => toggle(column.key)}
                  renderRoot={(props) => <button {...props} role="menuitemcheckbox" aria-checked={!hidden.has(column.key)} />}
                  leftSection={<Checkbox size="xs" checked={!hidden.has(column.key)} readOnly tabIndex={-1} aria-hidden />}>
                  {column.label}
                </Menu.Item>
              ))}
            </Menu.Dropdown>
          </Menu>
        )}
        <Menu position="bottom-end">
          <Menu.Target>
            <ActionIcon variant="default" size="md" aria-label={t("table.export")}>
              <Icon name="download" />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Label>{picked.length ? t("table.exportChosen", { count: picked.length }) : t("table.exportAll")}</Menu.Label>
            <Menu.Item onClick={() => void exportAll("csv")}>{t("table.csv")}</Menu.Item>
            <Menu.Item onClick={() => void exportAll("json")}>{t("table.json")}</Menu.Item>
          </Menu.Dropdown>
        </Menu>
      </div>
      {bulk && picked.length > 0 && (
        <div className="bulk" role="region" aria-label={t("table.chosen", { count: picked.length })}>
          <strong>{t("table.chosen", { count: picked.length })}</strong>
          {bulk(picked, clear)}
          <span className="grow" />
          <ActionIcon variant="subtle" color="gray" onClick={clear} aria-label={t("table.clear")}>
            <Icon name="close" />
          </ActionIcon>
        </div>
      )}
      {rows.loading ? (
        <Waiting />
      ) : rows.error && list.length === 0 ? (
        <Failure error={rows.error} retry={rows.retry} />
      ) : list.length === 0 ? (
        empty
      ) : (
        <div className="table" role="grid" aria-label={label} aria-rowcount={more ? -1 : list.length + 1} tabIndex={0}
          onKeyDown={keys} ref={scroll} data-table aria-activedescendant={list[at] ? `row-${list[at].id}` : undefined}>
          <div className="row head" role="row" aria-rowindex={1} style={{ gridTemplateColumns: grid }}>
            {bulk && !phone && (
              <span role="columnheader" className="cell check">
                <Checkbox size="xs" aria-label={t("table.choose")} checked={picked.length > 0 && picked.length === list.length}
                  indeterminate={picked.length > 0 && picked.length < list.length} tabIndex={-1}
                  onChange={(event) => setChosen(event.currentTarget.checked ? new Set(list.map((row) => row.id)) : new Set())} />
              </span>
            )}
            {shown.map((column) => (
              <span key={column.key} role="columnheader" className="cell">
                {column.label}
              </span>
            ))}
          </div>
          <div className="rows" role="presentation" style={{ height: virtual.getTotalSize() }} onClick={pressed}>
            {items.map(({ index }) => {
              const row = list[index];
              return row && (
                <Line key={row.id} row={row} index={index} columns={shown} grid={grid} at={index === at} on={chosen.has(row.id)}
                  mark={mark?.(row) ?? ""} box={bulk && !phone ? t("table.choose") : undefined} />
              );
            })}
          </div>
        </div>
      )}
    </div>
  );
}
