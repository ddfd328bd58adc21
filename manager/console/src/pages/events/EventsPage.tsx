// Everything malicious that was found, over all hosts: real-time and by scans.
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { useList } from "../../api/lists";
import { useHost } from "../../api/queries";
import type { StoredEvent } from "../../api/types";
import { useParam } from "../../parts/address";
import { Find, Only } from "../../parts/Filter";
import { Empty } from "../../parts/Notice";
import { Period, usePeriod } from "../../parts/Period";
import { Table } from "../../parts/Table";
import { term } from "../../parts/terms";
import { useColumns } from "./columns";

const USUAL = "24h";
/** Markers by which the protection proves itself are no detections. */
const QUERY = "kind:malware -signature:Holdfast_Self_Proof";
const EVERY = 4_000;
const byNumber = (event: StoredEvent) => event.number;

export default function EventsPage() {
  const { t } = useTranslation();
  const [host] = useParam("host");
  const [text] = useParam("text");
  const [, span] = usePeriod(USUAL);
  const only = useHost(host || undefined);
  const params = useMemo(() => {
    const query = [QUERY, host && term("host", host), text && term("text", text)].filter(Boolean).join(" ");
    return { query, from_ms: span.from_ms, until_ms: span.until_ms };
  }, [host, text, span]);
  const rows = useList<StoredEvent>({ path: "/api/v1/events", params, every: span.until_ms === null ? EVERY : null }, byNumber);
  const columns = useColumns();
  return (
    <div className="page full">
      <header className="head">
        <h1>{t("menu.events")}</h1>
        <Period usual={USUAL} />
      </header>
      <Table name="events" label={t("menu.events")} rows={rows} columns={columns} open={(event) => `/events/${event.number}`}
        tools={
          <>
            <Find label={t("events.find")} />
            <Only name="host" label={t("alerts.host")} text={only.data?.name} />
          </>
        }
        empty={
          host || text ? (
            <Empty title={t("events.noMatch")} hint={t("alerts.noMatchHint")}>
              <Link to="/events">{t("alerts.reset")}</Link>
            </Empty>
          ) : (
            <Empty title={t("events.none")} hint={t("events.noneHint")} />
          )
        } />
    </div>
  );
}
