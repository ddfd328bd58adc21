// All hosts: how they stand and why, and how another one comes here.
import { Button } from "@mantine/core";
import { memo, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { useRows } from "../../api/rows";
import type { Host } from "../../api/types";
import { useParam } from "../../parts/address";
import { Choose, Find } from "../../parts/Filter";
import { Icon } from "../../parts/Icon";
import { Health } from "../../parts/Marks";
import { Empty } from "../../parts/Notice";
import { OrderDialog, type Order } from "../../parts/OrderDialog";
import { Plain } from "../../parts/Plain";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { useRole } from "../../shell/session";
import { AddHost } from "./AddHost";

const reasons = (host: Host) => host.reasons.map((reason) => `${reason.name}: ${reason.evidence}`).join("; ");

function useColumns(): Column<Host>[] {
  const { t, i18n } = useTranslation();
  return useMemo(() => {
    const time = (ms: number | null | undefined) => (ms ? exact(ms, i18n.language) : "");
    return [
      { key: "health", label: t("hosts.health"), width: "106px", phone: true, cell: (h) => <Health host={h} />, text: (h) => h.health },
      {
        key: "name", label: t("hosts.name"), width: "minmax(120px, 1.2fr)", phone: true, text: (h) => h.name,
        cell: (h) => (
          <>
            <Plain text={h.name} most={80} /> {h.isolated && <span className="mark cut">{t("hosts.isolated")}</span>}
          </>
        ),
      },
      {
        key: "why", label: t("hosts.why"), width: "minmax(140px, 2fr)", text: reasons,
        cell: (h) => (h.reasons.length ? <Plain text={reasons(h)} most={240} /> : <span className="dim">{t("hosts.fine")}</span>),
      },
      { key: "proven", label: t("hosts.provenAt"), width: "104px", cell: (h) => <Time ms={h.proven_ms} />, text: (h) => time(h.proven_ms) },
      { key: "seen", label: t("hosts.seen"), width: "106px", phone: true, cell: (h) => <Time ms={h.seen_ms} />, text: (h) => time(h.seen_ms) },
      { key: "group", label: t("hosts.group"), width: "100px", cell: (h) => <Plain text={h.group} most={60} />, text: (h) => h.group },
      { key: "system", label: t("hosts.system"), width: "minmax(100px, 1fr)", cell: (h) => <Plain text={h.facts.system ?? ""} most={80} />, text: (h) => h.facts.system ?? "", extra: true },
      { key: "kernel", label: t("hosts.kernel"), width: "minmax(90px, 1fr)", cell: (h) => <Plain text={h.facts.kernel ?? ""} most={60} />, text: (h) => h.facts.kernel ?? "" },
      { key: "version", label: t("hosts.version"), width: "76px", cell: (h) => <Plain text={h.version ?? h.facts.version ?? ""} most={30} />, text: (h) => h.version ?? "" },
      { key: "bundle", label: t("hosts.bundle"), width: "106px", cell: (h) => <Time ms={h.bundle_ms} />, text: (h) => time(h.bundle_ms) },
      { key: "addresses", label: t("hosts.addresses"), width: "minmax(100px, 1fr)", cell: (h) => <Plain text={(h.facts.addresses ?? []).join(" ")} most={80} />, text: (h) => (h.facts.addresses ?? []).join(" "), extra: true },
      { key: "quarantined", label: t("hosts.quarantined"), width: "106px", cell: (h) => <span className="number">{h.quarantined ?? ""}</span>, text: (h) => String(h.quarantined ?? ""), extra: true },
      { key: "enrolled", label: t("hosts.enrolled"), width: "100px", cell: (h) => <Time ms={h.enrolled_ms} />, text: (h) => time(h.enrolled_ms), extra: true },
    ];
  }, [t, i18n.language]);
}

/** Stays as it is while rows come. */
const Tools = memo(function Tools() {
  const { t } = useTranslation();
  return (
    <>
      <Find label={t("hosts.find")} />
      <Choose name="health" label={t("hosts.health")} any={t("health.any")}
        options={["red", "green", "new"].map((value) => ({ value, label: t(`health.${value}`) }))} />
    </>
  );
});

export default function HostsPage() {
  const { t } = useTranslation();
  const { operator, admin } = useRole();
  const [health] = useParam("health");
  const [text] = useParam("text");
  const [add, setAdd] = useParam("add");
  const [order, setOrder] = useState<Order | null>(null);
  const params = useMemo(() => ({ health: health || null, text }), [health, text]);
  const rows = useRows<Host>("hosts", params, false);
  const columns = useColumns();
  const targets = (chosen: Host[]) => chosen.map((host) => ({ host_id: host.id, host: host.name }));
  const bulk = (chosen: Host[]) => (
    <>
      {(["isolate", "release", "diagnostics"] as const).map((kind) => (
        <Button key={kind} size="compact-sm" variant="default" onClick={() => setOrder({ wish: { kind }, targets: targets(chosen) })}>
          {t(`order.${kind}.do`)}
        </Button>
      ))}
    </>
  );
  return (
    <div className="page full">
      <header className="head">
        <h1>{t("menu.hosts")}</h1>
        {admin && (
          <Button size="xs" leftSection={<Icon name="plus" size={14} />} onClick={() => setAdd("1")}>
            {t("hosts.add")}
          </Button>
        )}
      </header>
      <Table name="hosts" label={t("menu.hosts")} rows={rows} columns={columns} open={(host) => `/hosts/${host.id}`} {...(operator ? { bulk } : {})}
        mark={(host) => (host.health === "red" && !host.revoked_ms ? "bad" : "")}
        tools={<Tools />}
        empty={
          health || text ? (
            <Empty title={t("hosts.noMatch")} hint={t("hosts.noMatchHint")}>
              <Link to="/hosts">{t("alerts.reset")}</Link>
            </Empty>
          ) : (
            <Empty title={t("hosts.none")} hint={t(admin ? "hosts.noneHint" : "hosts.noneAsk")}>
              {admin && (
                <Button size="xs" onClick={() => setAdd("1")}>
                  {t("hosts.add")}
                </Button>
              )}
            </Empty>
          )
        } />
      {admin && <AddHost opened={add === "1"} close={() => setAdd("")} />}
      <OrderDialog order={order} close={() => setOrder(null)} />
    </div>
  );
}
