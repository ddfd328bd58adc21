// A long list with what stands above it: what narrows it, how many there are, which columns, export.
// Columns are chosen by the reader and kept in this browser.
import { ActionIcon, Checkbox, Menu } from "@mantine/core";
import { memo, useCallback, useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import type { Rows } from "../api/rows";
import { Grid, type Column } from "./Grid";
import { Icon } from "./Icon";
import { Failure, useReason, Waiting } from "./Notice";
import { csvCell } from "./visible";
import { notifications } from "@mantine/notifications";

export type { Column };

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
  const toggle = useCallback(
    (key: string) =>
      setHidden((before) => {
        const next = new Set(before);
        if (!next.delete(key)) next.add(key);
        localStorage.setItem(kept, JSON.stringify([...next]));
        return next;
      }),
    [kept],
  );
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

type Named = Pick<Column<never>, "key" | "label">;

// Both menus stay as they are while rows come and go.
const ColumnsMenu = memo(function ColumnsMenu({ columns, hidden, toggle }: { columns: Named[]; hidden: Set<string>; toggle: (key: string) => void }) {
  const { t } = useTranslation();
  return (
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
  );
});

const ExportMenu = memo(function ExportMenu({ chosen, save }: { chosen: number; save: (kind: "csv" | "json") => Promise<void> }) {
  const { t } = useTranslation();
  return (
    <Menu position="bottom-end">
      <Menu.Target>
        <ActionIcon variant="default" size="md" aria-label={t("table.export")}>
          <Icon name="download" />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>{chosen ? t("table.exportChosen", { count: chosen }) : t("table.exportAll")}</Menu.Label>
        <Menu.Item onClick={() => void save("csv")}>{t("table.csv")}</Menu.Item>
        <Menu.Item onClick={() => void save("json")}>{t("table.json")}</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
});

export function Table<T extends { id: string }>({ name, label, rows, columns, open, empty, bulk, mark, tools }: Props<T>) {
  const { t } = useTranslation();
  const reason = useReason();
  const phone = usePhone();
  const [hidden, toggle] = useHidden(name, columns);
  const [chosen, setChosen] = useState<Set<string>>(new Set());
  const list = rows.rows;
  const shown = useMemo(
    () => columns.filter((column) => (phone ? column.phone : !hidden.has(column.key))),
    [columns, hidden, phone],
  );
  const picked = useMemo(() => (chosen.size ? list.filter((row) => chosen.has(row.id)) : []), [chosen, list]);
  const clear = () => setChosen(new Set());
  const wanted = useRef({ rows, picked, reason });
  useEffect(() => {
    wanted.current = { rows, picked, reason };
  });
  const saveAll = useCallback(
    async (kind: "csv" | "json") => {
      const { rows, picked, reason } = wanted.current;
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
    },
    [columns, name],
  );

  return (
    <div className="table-frame">
      <div className="toolbar">
        {tools}
        <span className="grow" />
        <span className="dim count" aria-live="polite">
          {rows.loading ? "" : t(rows.more ? "table.atLeast" : "table.rows", { count: list.length })}
        </span>
        {!phone && <ColumnsMenu columns={columns} hidden={hidden} toggle={toggle} />}
        <ExportMenu chosen={picked.length} save={saveAll} />
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
        <Grid label={label} rows={rows} columns={shown} open={open} choosable={bulk !== undefined && !phone} chosen={chosen}
          setChosen={setChosen} picked={picked.length} mark={mark} />
      )}
    </div>
  );
}
