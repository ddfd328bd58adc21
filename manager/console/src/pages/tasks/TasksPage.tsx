// All response tasks: what was ordered, where, by whom, and how far it is.
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { useRows } from "../../api/rows";
import { STAGES, type Task } from "../../api/types";
import { useParam } from "../../parts/address";
import { Choose } from "../../parts/Filter";
import { Stage } from "../../parts/Marks";
import { Empty } from "../../parts/Notice";
import { Period, usePeriod } from "../../parts/Period";
import { Plain } from "../../parts/Plain";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";

const USUAL = "7d";

export default function TasksPage() {
  const { t, i18n } = useTranslation();
  const [stage] = useParam("stage");
  const [host] = useParam("host");
  const [, span] = usePeriod(USUAL);
  const params = useMemo(() => ({ stage, host, from_ms: span.from_ms, until_ms: span.until_ms }), [stage, host, span]);
  const rows = useRows<Task>("tasks", params, true);
  const columns = useMemo<Column<Task>[]>(() => {
    const time = (ms: number | null | undefined) => (ms ? exact(ms, i18n.language) : "");
    return [
      { key: "stage", label: t("tasks.stage"), width: "104px", phone: true, cell: (k) => <Stage task={k} />, text: (k) => k.stage },
      { key: "action", label: t("tasks.action"), width: "150px", phone: true, cell: (k) => t(`action.${k.action.action}`), text: (k) => k.action.action },
      { key: "host", label: t("alerts.host"), width: "minmax(90px, 1fr)", phone: true, cell: (k) => <Plain text={k.host} most={80} />, text: (k) => k.host },
      { key: "observed", label: t("tasks.observed"), width: "minmax(140px, 2fr)", cell: (k) => <Plain text={k.observed} most={200} />, text: (k) => k.observed },
      { key: "reason", label: t("order.reason"), width: "minmax(120px, 1.5fr)", cell: (k) => <Plain text={k.reason} most={160} />, text: (k) => k.reason },
      { key: "by", label: t("tasks.by"), width: "100px", cell: (k) => <Plain text={k.filed_by} most={40} />, text: (k) => k.filed_by },
      { key: "filed", label: t("tasks.filed"), width: "106px", phone: true, cell: (k) => <Time ms={k.filed_ms} />, text: (k) => time(k.filed_ms) },
      { key: "ended", label: t("tasks.ended"), width: "106px", cell: (k) => (k.ended_ms ? <Time ms={k.ended_ms} /> : null), text: (k) => time(k.ended_ms), extra: true },
    ];
  }, [t, i18n.language]);
  return (
    <div className="page full">
      <header className="head">
        <h1>{t("menu.tasks")}</h1>
        <Period usual={USUAL} />
      </header>
      <Table name="tasks" label={t("menu.tasks")} rows={rows} columns={columns} open={(task) => `/tasks/${task.id}`}
        tools={
          <Choose name="stage" label={t("tasks.stage")} any={t("stage.any")}
            options={["open", ...STAGES].map((value) => ({ value, label: t(`stage.${value}`) }))} />
        }
        empty={
          <Empty title={t("tasks.none")} hint={t(stage || host ? "alerts.noMatchHint" : "tasks.noneHint")}>
            {(stage || host) && <Link to="/tasks">{t("alerts.reset")}</Link>}
          </Empty>
        } />
    </div>
  );
}
