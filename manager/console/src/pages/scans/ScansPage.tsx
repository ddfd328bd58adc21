// Scans of files on all hosts: those under way, with the means to stop them, and the history that the
// hosts tell.
import { Button, Progress } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { post } from "../../api/client";
import { useList, type Row } from "../../api/lists";
import { queries, useHost, useSome } from "../../api/queries";
import type { Scan, StoredEvent, Task } from "../../api/types";
import { useParam } from "../../parts/address";
import { Choose, Find, Only } from "../../parts/Filter";
import { Stage } from "../../parts/Marks";
import { Empty, useReason } from "../../parts/Notice";
import { Period, usePeriod } from "../../parts/Period";
import { Plain } from "../../parts/Plain";
import { Table, type Column } from "../../parts/Table";
import { term } from "../../parts/terms";
import { exact, Time } from "../../parts/Time";
import { Why } from "../../parts/Why";
import { useRole } from "../../shell/session";
import { ENDS, lateOf, ScanState, useSpan } from "./parts";
import { ScanDialog } from "./ScanDialog";

const USUAL = "7d";
const EVERY = 4_000;
/** Tasks under way that are looked through for scans. */
const TASKS = 200;
const byNumber = (event: StoredEvent) => event.number;
const scanOf = (event: StoredEvent) => event.event as unknown as Scan;

export default function ScansPage() {
  const { t } = useTranslation();
  const { operator } = useRole();
  const [state] = useParam("state");
  const [host] = useParam("host");
  const [text] = useParam("text");
  const [, span] = usePeriod(USUAL);
  const [starting, setStarting] = useState(false);
  const only = useHost(host || undefined);
  const params = useMemo(() => {
    const states = state ? `action:${state}` : `(${ENDS.map((end) => `action:${end}`).join(" OR ")})`;
    const query = ["kind:scan", states, host && term("host", host), text && term("text", text)].filter(Boolean).join(" ");
    return { query, from_ms: span.from_ms, until_ms: span.until_ms };
  }, [state, host, text, span]);
  const rows = useList<StoredEvent>({ path: "/api/v1/events", params, every: span.until_ms === null ? EVERY : null }, byNumber);
  const columns = useColumns();
  return (
    <div className="page full">
      <header className="head">
        <h1>{t("menu.scans")}</h1>
        <div className="actions">
          <Button size="xs" variant="subtle" component={Link} to="/policies">
            {t("scans.schedules")}
          </Button>
          {operator && (
            <Button size="xs" onClick={() => setStarting(true)}>
              {t("scans.start")}
            </Button>
          )}
          <Period usual={USUAL} />
        </div>
      </header>
      <Running />
      <Table name="scans" label={t("scans.history")} rows={rows} columns={columns} open={(event) => `/scans/${event.number}`}
        mark={(event) => (scanOf(event).progress?.found ? "fresh" : "")}
        tools={
          <>
            <Find label={t("scans.find")} />
            <Choose name="state" label={t("alerts.state")} any={t("scanState.any")} options={ENDS.map((value) => ({ value, label: t(`scanState.${value}`) }))} />
            <Only name="host" label={t("alerts.host")} text={only.data?.name} />
          </>
        }
        empty={
          state || host || text ? (
            <Empty title={t("scans.noMatch")} hint={t("alerts.noMatchHint")}>
              <Link to="/scans">{t("alerts.reset")}</Link>
            </Empty>
          ) : (
            <Empty title={t("scans.none")} hint={t(operator ? "scans.noneHint" : "scans.noneLook")} />
          )
        } />
      <ScanDialog opened={starting} close={() => setStarting(false)} />
    </div>
  );
}

function useColumns(): Column<Row<StoredEvent>>[] {
  const { t, i18n } = useTranslation();
  const lasted = useSpan();
  return useMemo(() => {
    const number = (key: keyof NonNullable<Scan["progress"]>, extra = false): Column<Row<StoredEvent>> => ({
      key, label: t(`scans.${key}`), width: "88px", phone: key === "found", extra,
      cell: (e) => <span className={key === "found" && scanOf(e).progress?.[key] ? "number bad" : "number"}>{(scanOf(e).progress?.[key] ?? 0).toLocaleString(i18n.language)}</span>,
      text: (e) => String(scanOf(e).progress?.[key] ?? ""),
    });
    const scope = (e: StoredEvent) => {
      const name = scanOf(e).scope ?? "";
      return t(`scope.${name}`, { defaultValue: name });
    };
    const places = (e: StoredEvent) => (scanOf(e).places ?? []).join(" ");
    const late = (e: StoredEvent) => lateOf(scanOf(e));
    return [
      { key: "state", label: t("alerts.state"), width: "112px", phone: true, cell: (e) => <ScanState state={scanOf(e).state} />, text: (e) => scanOf(e).state ?? "" },
      { key: "ended", label: t("tasks.ended"), width: "106px", phone: true, cell: (e) => <Time ms={e.time_ms} />, text: (e) => exact(e.time_ms, i18n.language) },
      { key: "host", label: t("alerts.host"), width: "minmax(80px, 1fr)", phone: true, cell: (e) => <Plain text={e.host} most={80} />, text: (e) => e.host },
      { key: "scope", label: t("field.scope"), width: "80px", cell: (e) => <Plain text={scope(e)} most={20} />, text: (e) => scanOf(e).scope ?? "" },
      { key: "places", label: t("scans.places"), width: "minmax(120px, 2fr)", cell: (e) => <Plain text={places(e)} most={200} />, text: places },
      { key: "by", label: t("scans.by"), width: "minmax(90px, 1fr)", cell: (e) => <Plain text={scanOf(e).schedule ?? scanOf(e).started_by ?? ""} most={80} />, text: (e) => scanOf(e).schedule ?? scanOf(e).started_by ?? "" },
      number("found"),
      { key: "late", label: t("scans.late"), width: "80px", cell: (e) => <span className={late(e) ? "number bad" : "number"}>{late(e)}</span>, text: (e) => String(late(e)) },
      number("files"),
      number("failed"),
      number("skipped"),
      number("bytes", true),
      { key: "lasted", label: t("scans.lasted"), width: "92px", cell: (e) => lasted(scanOf(e).running_ms), text: (e) => String(scanOf(e).running_ms ?? ""), extra: true },
      { key: "note", label: t("scans.note"), width: "minmax(100px, 1fr)", cell: (e) => <Plain text={scanOf(e).note ?? ""} most={120} />, text: (e) => scanOf(e).note ?? "", extra: true },
    ];
  }, [t, i18n.language, lasted]);
}

/** Orders to scan that have not come to their end. */
function Running() {
  const { t } = useTranslation();
  const tasks = useSome<Task>("tasks", { stage: "open", from_ms: 0, limit: TASKS });
  const scans = (tasks.data?.items ?? []).filter((task) => task.action.action === "scan");
  if (scans.length === 0) return null;
  return (
    <section className="card running" aria-label={t("scans.running")}>
      <header>
        <h2>{t("scans.running")}</h2>
      </header>
      <ul className="list">
        {scans.map((task) => (
          <Order key={task.id} task={task} />
        ))}
      </ul>
    </section>
  );
}

/** How far the host says that it is. */
const PERCENT = /\b(\d{1,3}) percent\b/;

function Order({ task }: { task: Task }) {
  const { t } = useTranslation();
  const { operator } = useRole();
  const reason = useReason();
  const [stopping, setStopping] = useState(false);
  const scope = String(task.action.scope ?? "paths");
  const told = PERCENT.exec(task.observed)?.[1];
  const percent = told === undefined ? null : Math.min(100, Number(told));
  const stop = async (why: string) => {
    try {
      await post(`/api/v1/tasks/${task.id}/cancel`, { reason: why });
      setStopping(false);
      await queries.invalidateQueries({ queryKey: ["tasks", "some"] });
    } catch (error) {
      notifications.show({ color: "red", message: reason(error) });
    }
  };
  return (
    <li className="order">
      <Stage task={task} />
      <Link to={`/tasks/${task.id}`} className="what">
        <Plain text={task.host} most={60} /> · {t(`scope.${scope}`, { defaultValue: scope })}
        <small>
          <Plain text={task.observed || task.reason} most={160} />
        </small>
      </Link>
      <Progress className="bar" value={percent ?? 0} aria-label={t("scans.progress")} />
      <Time ms={task.filed_ms} />
      {operator && (
        <Button size="compact-sm" variant="default" disabled={Boolean(task.cancel_ms)} onClick={() => setStopping(true)}>
          {t(task.cancel_ms ? "scans.stopping" : "scans.stop")}
        </Button>
      )}
      <Why opened={stopping} title={t("scans.stop")} effect={t("scans.stopEffect")} send={t("scans.stop")} close={() => setStopping(false)} done={stop} />
    </li>
  );
}
