// All alerts: what, where, how often, how it stands.
import { Button, Menu } from "@mantine/core";
import { memo, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { useHost, useModels } from "../../api/queries";
import { useRows } from "../../api/rows";
import { ALERT_KINDS, LEVELS, RESOLUTIONS, type Alert } from "../../api/types";
import { useParam } from "../../parts/address";
import { Choose, Find, Only } from "../../parts/Filter";
import { AlertState, Level } from "../../parts/Marks";
import { Empty } from "../../parts/Notice";
import { OrderDialog, type Order } from "../../parts/OrderDialog";
import { Period, usePeriod } from "../../parts/Period";
import { Plain } from "../../parts/Plain";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { useRole } from "../../shell/session";
import { useEdit } from "./actions";

const USUAL = "all";

function useColumns(): Column<Alert>[] {
  const { t, i18n } = useTranslation();
  return useMemo(() => {
    const time = (ms: number) => exact(ms, i18n.language);
    return [
      { key: "level", label: t("alerts.level"), width: "104px", phone: true, cell: (a) => <Level level={a.level} />, text: (a) => a.level },
      { key: "title", label: t("alerts.title"), width: "minmax(160px, 3fr)", phone: true, cell: (a) => <Plain text={a.title} most={240} />, text: (a) => a.title },
      { key: "host", label: t("alerts.host"), width: "minmax(90px, 1fr)", cell: (a) => <Plain text={a.host} most={80} />, text: (a) => a.host },
      { key: "kind", label: t("alerts.kind"), width: "110px", cell: (a) => t(`kind.${a.kind}`), text: (a) => a.kind, extra: true },
      { key: "attack", label: t("alerts.attack"), width: "100px", cell: (a) => a.attack.join(" "), text: (a) => a.attack.join(" ") },
      { key: "cause", label: t("alerts.cause"), width: "minmax(100px, 1fr)", cell: (a) => <Plain text={a.cause} most={120} mono />, text: (a) => a.cause, extra: true },
      { key: "count", label: t("alerts.count"), width: "64px", cell: (a) => <span className="number">{a.count}</span>, text: (a) => String(a.count) },
      { key: "last", label: t("alerts.last"), width: "106px", phone: true, cell: (a) => <Time ms={a.last_ms} />, text: (a) => time(a.last_ms) },
      { key: "first", label: t("alerts.first"), width: "106px", cell: (a) => <Time ms={a.first_ms} />, text: (a) => time(a.first_ms), extra: true },
      { key: "state", label: t("alerts.state"), width: "116px", cell: (a) => <AlertState alert={a} />, text: (a) => a.resolution ?? a.state },
      { key: "assignee", label: t("alerts.assignee"), width: "100px", cell: (a) => <Plain text={a.assignee ?? ""} most={40} />, text: (a) => a.assignee ?? "", extra: true },
    ];
  }, [t, i18n.language]);
}

/** Stays as it is while rows come. */
const Tools = memo(function Tools({ host, model }: { host: string | undefined; model: string | undefined }) {
  const { t } = useTranslation();
  return (
    <>
      <Find label={t("alerts.find")} />
      <Choose name="state" usual="open" label={t("alerts.state")} any={t("state.any")}
        options={["open", "new", "in_progress", "resolved"].map((value) => ({ value, label: t(`state.${value}`) }))} />
      <Choose name="level" label={t("alerts.level")} any={t("level.any")}
        options={LEVELS.map((value) => ({ value, label: t(`level.${value}`) }))} />
      <Choose name="kind" label={t("alerts.kind")} any={t("kind.any")}
        options={ALERT_KINDS.map((value) => ({ value, label: t(`kind.${value}`) }))} />
      <Only name="host" label={t("alerts.host")} text={host} />
      <Only name="model" label={t("models.title")} text={model} />
    </>
  );
});

export default function AlertsPage() {
  const { t } = useTranslation();
  const { operator } = useRole();
  const { edit, take } = useEdit();
  const [state] = useParam("state", "open");
  const [level] = useParam("level");
  const [kind] = useParam("kind");
  const [host] = useParam("host");
  const [model] = useParam("model");
  const [text] = useParam("text");
  const [, span] = usePeriod(USUAL);
  const [order, setOrder] = useState<Order | null>(null);
  const params = useMemo(
    () => ({ state: state === "any" ? "" : state, level, kind, host, model, text, from_ms: span.from_ms, until_ms: span.until_ms }),
    [state, level, kind, host, model, text, span],
  );
  const rows = useRows<Alert>("alerts", params, true);
  const only = useHost(host || undefined);
  // A shipped model has a title; a signature or a capability is its own.
  const models = useModels({}, model !== "");
  const title = models.data?.find((one) => one.id === model)?.title;
  const columns = useColumns();
  const filtered = state !== "open" || level || kind || host || model || text || span.until_ms;
  const bulk = (chosen: Alert[], clear: () => void) => (
    <>
      <Button size="compact-sm" variant="default" onClick={() => void take(chosen).then(clear)}>
        {t("alerts.take")}
      </Button>
      <Menu>
        <Menu.Target>
          <Button size="compact-sm" variant="default">
            {t("alerts.resolve")}
          </Button>
        </Menu.Target>
        <Menu.Dropdown>
          {RESOLUTIONS.map((resolution) => (
            <Menu.Item key={resolution} onClick={() => void edit(chosen, { state: "resolved", resolution }).then(clear)}>
              {t(`resolution.${resolution}`)}
            </Menu.Item>
          ))}
        </Menu.Dropdown>
      </Menu>
      <Button size="compact-sm" variant="default" color="red" onClick={() =>
        setOrder({ wish: { kind: "isolate" }, targets: chosen.map((one) => ({ host_id: one.host_id, host: one.host, alert: one.id })) })}>
        {t("order.isolate.do")}
      </Button>
    </>
  );
  return (
    <div className="page full">
      <header className="head">
        <h1>{t("menu.alerts")}</h1>
        <Period usual={USUAL} />
      </header>
      <Table name="alerts" label={t("menu.alerts")} rows={rows} columns={columns} open={(alert) => `/alerts/${alert.id}`}
        mark={(alert) => (alert.state === "new" ? "fresh" : "")} {...(operator ? { bulk } : {})}
        tools={<Tools host={only.data?.name} model={title} />}
        empty={
          filtered ? (
            <Empty title={t("alerts.noMatch")} hint={t("alerts.noMatchHint")}>
              <Link to="/alerts">{t("alerts.reset")}</Link>
            </Empty>
          ) : (
            <Empty title={t("alerts.none")} hint={t("alerts.noneHint")} />
          )
        } />
      <OrderDialog order={order} close={() => setOrder(null)} />
    </div>
  );
}
