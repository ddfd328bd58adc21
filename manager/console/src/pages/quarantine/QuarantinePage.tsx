// Quarantined files of all hosts, and what is done with many of them at once.
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { useList, type Row } from "../../api/lists";
import { useHost } from "../../api/queries";
import { ITEM_STATES, type Item } from "../../api/types";
import { useParam } from "../../parts/address";
import { Choose, Only } from "../../parts/Filter";
import { Empty } from "../../parts/Notice";
import { OrderDialog, type Order } from "../../parts/OrderDialog";
import { Plain } from "../../parts/Plain";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { useRole } from "../../shell/session";
import { ItemActions, ItemState } from "./parts";

const EVERY = 3_000;
const place = (item: Item) => `${item.host_id}/${item.item}`;

export default function QuarantinePage() {
  const { t, i18n } = useTranslation();
  const { operator } = useRole();
  const [state] = useParam("state", "held");
  const [host] = useParam("host");
  const [sha256] = useParam("sha256");
  const [order, setOrder] = useState<Order | null>(null);
  const only = useHost(host || undefined);
  const params = useMemo(() => ({ state: state === "any" ? "" : state, host, sha256 }), [state, host, sha256]);
  const rows = useList<Item>({ path: "/api/v1/quarantine", params, every: EVERY }, place);
  const columns = useMemo<Column<Row<Item>>[]>(() => {
    const time = (ms: number) => exact(ms, i18n.language);
    return [
      { key: "state", label: t("alerts.state"), width: "136px", phone: true, cell: (q) => <ItemState state={q.state} />, text: (q) => q.state },
      { key: "path", label: t("evidence.path"), width: "minmax(160px, 3fr)", phone: true, cell: (q) => <Plain text={q.path} most={240} />, text: (q) => q.path },
      { key: "signature", label: t("evidence.signature"), width: "minmax(110px, 1fr)", cell: (q) => <Plain text={q.signature} most={120} />, text: (q) => q.signature },
      { key: "host", label: t("alerts.host"), width: "minmax(80px, 1fr)", cell: (q) => <Plain text={q.host} most={80} />, text: (q) => q.host },
      { key: "size", label: t("evidence.size"), width: "84px", cell: (q) => <span className="number">{q.size}</span>, text: (q) => String(q.size) },
      { key: "sealed", label: t("quarantine.sealed"), width: "106px", phone: true, cell: (q) => <Time ms={q.sealed_ms} />, text: (q) => time(q.sealed_ms) },
      { key: "since", label: t("quarantine.since"), width: "106px", cell: (q) => <Time ms={q.state_ms} />, text: (q) => time(q.state_ms), extra: true },
      { key: "sha256", label: t("evidence.sha256"), width: "minmax(120px, 1fr)", cell: (q) => <Plain text={q.sha256} mono />, text: (q) => q.sha256, extra: true },
      { key: "md5", label: t("evidence.md5"), width: "minmax(120px, 1fr)", cell: (q) => <Plain text={q.md5} mono />, text: (q) => q.md5, extra: true },
      { key: "item", label: t("field.item"), width: "minmax(120px, 1fr)", cell: (q) => <Plain text={q.item} mono />, text: (q) => q.item, extra: true },
    ];
  }, [t, i18n.language]);
  return (
    <div className="page full">
      <header className="head">
        <h1>{t("menu.quarantine")}</h1>
      </header>
      <Table name="quarantine" label={t("menu.quarantine")} rows={rows} columns={columns} open={(item) => `/quarantine/${place(item)}`}
        {...(operator ? { bulk: (chosen: Row<Item>[]) => <ItemActions items={chosen} size="compact-sm" ask={setOrder} /> } : {})}
        tools={
          <>
            <Choose name="state" usual="held" label={t("alerts.state")} any={t("itemState.any")}
              options={ITEM_STATES.map((value) => ({ value, label: t(`itemState.${value}`) }))} />
            <Only name="host" label={t("alerts.host")} text={only.data?.name} />
            <Only name="sha256" label={t("evidence.sha256")} />
          </>
        }
        empty={
          state !== "held" || host || sha256 ? (
            <Empty title={t("quarantine.noMatch")} hint={t("quarantine.noMatchHint")}>
              <Link to="/quarantine">{t("alerts.reset")}</Link>
            </Empty>
          ) : (
            <Empty title={t("quarantine.none")} hint={t("quarantine.noneHint")}>
              <Link to="/quarantine?state=any">{t("quarantine.gone")}</Link>
            </Empty>
          )
        } />
      <OrderDialog order={order} close={() => setOrder(null)} />
    </div>
  );
}
