// What a list of detections shows, and what an export of it holds.
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import type { Row } from "../../api/lists";
import type { StoredEvent } from "../../api/types";
import { Plain } from "../../parts/Plain";
import type { Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { commandLine, visible } from "../../parts/visible";

export type EventRow = Row<StoredEvent>;

export function Disposition({ text }: { text: string | undefined }) {
  const { t } = useTranslation();
  if (!text) return null;
  return <span className={`mark done-${text}`}>{t(`done.${text}`, { defaultValue: visible(text) })}</span>;
}

export function useColumns(): Column<EventRow>[] {
  const { t, i18n } = useTranslation();
  return useMemo(() => {
    const time = (ms: number | undefined) => (ms ? exact(ms, i18n.language) : "");
    const text = (key: string, label: string, width: string, of: (row: EventRow) => string, more: Partial<Column<EventRow>> = {}): Column<EventRow> => ({
      key, label, width, cell: (row) => <Plain text={of(row)} most={240} mono={more.extra === true && key.length < 7} />, text: of, ...more,
    });
    const scan = (row: EventRow) => {
      const type = row.event.scan_type ?? "";
      return type && t(`scan.${type}`, { defaultValue: visible(type) });
    };
    const size = (row: EventRow) => row.event.file?.size;
    return [
      { key: "time", label: t("events.time"), width: "106px", phone: true, cell: (e) => <Time ms={e.time_ms} />, text: (e) => new Date(e.time_ms).toISOString() },
      { key: "done", label: t("events.done"), width: "118px", phone: true, cell: (e) => <Disposition text={e.event.disposition} />, text: (e) => e.event.disposition ?? "" },
      text("path", t("evidence.path"), "minmax(160px, 3fr)", (e) => e.event.path ?? "", { phone: true }),
      text("signature", t("evidence.signature"), "minmax(110px, 1fr)", (e) => e.event.signature?.name ?? ""),
      text("host", t("alerts.host"), "minmax(80px, 1fr)", (e) => e.host),
      { key: "scan", label: t("evidence.scan"), width: "110px", cell: scan, text: (e) => e.event.scan_type ?? "" },
      text("program", t("evidence.program"), "minmax(100px, 1fr)", (e) => e.event.process?.exe ?? ""),
      text("user", t("evidence.user"), "80px", (e) => e.event.process?.user ?? ""),
      text("command", t("events.command"), "minmax(120px, 1.5fr)", (e) => commandLine(e.event.process?.args ?? []), { extra: true }),
      text("sha256", t("evidence.sha256"), "minmax(120px, 1fr)", (e) => e.event.sha256 ?? "", { extra: true }),
      text("sha1", t("events.sha1"), "minmax(120px, 1fr)", (e) => e.event.sha1 ?? "", { extra: true }),
      text("md5", t("evidence.md5"), "minmax(120px, 1fr)", (e) => e.event.md5 ?? "", { extra: true }),
      { key: "size", label: t("evidence.size"), width: "80px", cell: (e) => <span className="number">{size(e)}</span>, text: (e) => String(size(e) ?? ""), extra: true },
      text("pid", t("evidence.pid"), "70px", (e) => String(e.event.process?.key?.pid ?? ""), { extra: true }),
      text("container", t("evidence.container"), "100px", (e) => e.event.process?.container ?? "", { extra: true }),
      text("decision", t("events.decision"), "80px", (e) => e.event.decision ?? "", { extra: true }),
      text("reason", t("evidence.reason"), "minmax(100px, 1fr)", (e) => e.event.reason ?? "", { extra: true }),
      { key: "modified", label: t("events.modified"), width: "106px", cell: (e) => <Time ms={e.event.file?.modified_ms} />, text: (e) => time(e.event.file?.modified_ms), extra: true },
      { key: "received", label: t("events.received"), width: "106px", cell: (e) => <Time ms={e.received_ms} />, text: (e) => time(e.received_ms), extra: true },
      text("id", t("events.id"), "minmax(120px, 1fr)", (e) => (e.event as { id?: string }).id ?? "", { extra: true }),
    ];
  }, [t, i18n.language]);
}
