// All remote shells: where, who, why, for how long, how they ended. Each leads to its terminal, or to
// its recording.
import { Button } from "@mantine/core";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { useList, type Row } from "../../api/lists";
import { useHost } from "../../api/queries";
import { STAGES, type Shell } from "../../api/types";
import { useParam } from "../../parts/address";
import { Choose, Only } from "../../parts/Filter";
import { Stage } from "../../parts/Marks";
import { Empty } from "../../parts/Notice";
import { Period, usePeriod } from "../../parts/Period";
import { Plain } from "../../parts/Plain";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { useRole } from "../../shell/session";
import { useSpan } from "../scans/parts";
import { OpenShell } from "./OpenShell";
import { NotYou, openFor } from "./parts";

const USUAL = "7d";
const EVERY = 4_000;
const byId = (shell: Shell) => shell.id;

function useColumns(): Column<Row<Shell>>[] {
  const { t, i18n } = useTranslation();
  const lasted = useSpan();
  return useMemo(() => {
    const mode = (k: Shell) => t(k.action.restricted ? "shells.modes.restricted" : "shells.modes.full");
    return [
      { key: "stage", label: t("tasks.stage"), width: "104px", phone: true, cell: (k) => <Stage task={k} />, text: (k) => k.stage },
      { key: "host", label: t("alerts.host"), width: "minmax(90px, 1fr)", phone: true, cell: (k) => <Plain text={k.host} most={80} />, text: (k) => k.host },
      { key: "mode", label: t("shells.mode"), width: "96px", cell: mode, text: mode },
      { key: "by", label: t("tasks.by"), width: "110px", phone: true, cell: (k) => <Plain text={k.filed_by} most={40} />, text: (k) => k.filed_by },
      { key: "reason", label: t("order.reason"), width: "minmax(120px, 1.5fr)", cell: (k) => <Plain text={k.reason} most={160} />, text: (k) => k.reason },
      { key: "filed", label: t("shells.opened"), width: "106px", phone: true, cell: (k) => <Time ms={k.filed_ms} />, text: (k) => exact(k.filed_ms, i18n.language) },
      { key: "lasted", label: t("shells.lasted"), width: "104px", cell: (k) => lasted(openFor(k)), text: (k) => String(openFor(k) ?? "") },
      { key: "observed", label: t("shells.how"), width: "minmax(140px, 2fr)", cell: (k) => <Plain text={k.observed} most={200} />, text: (k) => k.observed },
      {
        key: "recording", label: t("shells.recording"), width: "106px", text: (k) => String(k.recording_bytes ?? ""),
        cell: (k) => (k.recording_bytes ? <span className="number">{t("shells.kib", { count: Math.ceil(k.recording_bytes / 1024) })}</span> : <span className="dim">{t("shells.gone")}</span>),
      },
    ];
  }, [t, i18n.language, lasted]);
}

export default function ShellsPage() {
  const { t } = useTranslation();
  const { shell } = useRole();
  const [stage] = useParam("stage");
  const [host] = useParam("host");
  const [, span] = usePeriod(USUAL);
  const [opening, setOpening] = useState(false);
  const only = useHost(host || undefined);
  const params = useMemo(() => ({ stage, host, from_ms: span.from_ms, until_ms: span.until_ms }), [stage, host, span]);
  const rows = useList<Shell>({ path: "/api/v1/shells", params, every: span.until_ms === null ? EVERY : null }, byId);
  const columns = useColumns();
  return (
    <div className="page full">
      <header className="head">
        <h1>{t("menu.shells")}</h1>
        <div className="actions">
          {shell && (
            <Button size="xs" onClick={() => setOpening(true)}>
              {t("shells.open")}
            </Button>
          )}
          <Period usual={USUAL} />
        </div>
      </header>
      {!shell && <NotYou />}
      <Table name="shells" label={t("menu.shells")} rows={rows} columns={columns} open={(one) => `/shells/${one.id}`}
        mark={(one) => (one.ended_ms ? "" : "fresh")}
        tools={
          <>
            <Choose name="stage" label={t("tasks.stage")} any={t("stage.any")}
              options={["open", ...STAGES].map((value) => ({ value, label: t(`stage.${value}`) }))} />
            <Only name="host" label={t("alerts.host")} text={only.data?.name} />
          </>
        }
        empty={
          stage || host ? (
            <Empty title={t("shells.noMatch")} hint={t("alerts.noMatchHint")}>
              <Link to="/shells">{t("alerts.reset")}</Link>
            </Empty>
          ) : (
            <Empty title={t("shells.none")} hint={t(shell ? "shells.noneHint" : "shells.noneLook")} />
          )
        } />
      <OpenShell opened={opening} close={() => setOpening(false)} />
    </div>
  );
}
