// One scan of the history: what was looked at, what was found and how long it had lain there, what was
// left out and why.
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import { useEvent } from "../../api/queries";
import type { Scan, StoredEvent } from "../../api/types";
import { Card, Facts } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { Isolation } from "../../parts/Isolation";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { Lain } from "../alerts/Evidence";
import { Disposition } from "../events/columns";
import { ScanState, useSpan } from "./parts";

export default function ScanPage() {
  const { t } = useTranslation();
  const { number = "" } = useParams();
  const event = useEvent(number);
  if (event.isPending) return <Waiting />;
  if (!event.data) return <Failure error={event.error} retry={() => void event.refetch()} />;
  if (event.data.kind !== "scan") return <Empty title={t("frame.nothing")} hint={t("frame.nothingHint")} />;
  return <Detail event={event.data} scan={event.data.event as unknown as Scan} />;
}

/** Reasons why something that should have been scanned was not. */
const FAILURES = ["unreadable", "too_slow", "scanner_died", "no_scanner", "too_deep", "not_found"];

function Detail({ event, scan }: { event: StoredEvent; scan: Scan }) {
  const { t, i18n } = useTranslation();
  const lasted = useSpan();
  const number = (value: number | undefined) => (value ?? 0).toLocaleString(i18n.language);
  const { progress = {}, finds = [], left_out = [] } = scan;
  const tiles: [string, number | undefined, string][] = [
    ["files", progress.files, ""], ["found", progress.found, progress.found ? "bad" : "good"],
    ["failed", progress.failed, progress.failed ? "warn" : ""], ["skipped", progress.skipped, ""],
  ];
  return (
    <div className="page">
      <Isolation host={event.host_id} />
      <Head
        to="/scans"
        back={t("menu.scans")}
        title={
          <>
            <ScanState state={scan.state} /> {t("scans.of", { scope: t(`scope.${scan.scope ?? ""}`, { defaultValue: scan.scope ?? "" }) })}
          </>
        }
      >
        <p className="dim">
          <Link to={`/hosts/${event.host_id}`}>
            <Plain text={event.host} most={80} />
          </Link>
          {" · "}
          <Plain text={scan.schedule ?? scan.started_by ?? ""} most={120} />
          {" · "}
          <Time ms={event.time_ms} />
        </p>
      </Head>
      <div className="tiles">
        {tiles.map(([name, value, mark]) => (
          <div key={name} className={`tile ${mark}`}>
            <b>{number(value)}</b>
            <span>{t(`scans.${name}`)}</span>
          </div>
        ))}
      </div>
      <div className="two wide">
        <div className="column">
          <Card title={t("scans.finds")}>
            {finds.length === 0 ? (
              <Empty title={t("scans.clean")} hint={t("scans.cleanHint", { files: number(progress.files) })} />
            ) : (
              <ul className="finds">
                {finds.map((find, index) => (
                  <li key={index}>
                    <Disposition text={find.disposition} />
                    <span className="what">
                      <Plain text={find.path ?? ""} mono most={300} />
                      <small>
                        <Plain text={find.signature ?? ""} most={120} />
                        {find.late && (
                          <>
                            {" · "}
                            <Lain late={find.late} />
                          </>
                        )}
                      </small>
                    </span>
                    {find.quarantine_id && <Link to={`/quarantine/${event.host_id}/${find.quarantine_id}`}>{t("evidence.item")}</Link>}
                  </li>
                ))}
              </ul>
            )}
            {(progress.found ?? 0) > finds.length && <p className="dim hint">{t("scans.firstFinds", { count: finds.length })}</p>}
          </Card>
          <Card title={t("scans.leftOut")}>
            {left_out.length === 0 ? (
              <Empty title={t("scans.whole")} hint={t("scans.wholeHint")} />
            ) : (
              <ul className="finds">
                {left_out.map((one) => (
                  <li key={one.reason}>
                    <span className={`mark ${FAILURES.includes(one.reason ?? "") ? "stage-failed" : ""}`}>{number(one.count)}</span>
                    <span className="what">
                      {t(`leftOut.${one.reason ?? ""}`, { defaultValue: one.reason ?? "" })}
                      <small>
                        <Plain text={(one.examples ?? []).join(" ")} mono most={200} />
                      </small>
                    </span>
                  </li>
                ))}
              </ul>
            )}
          </Card>
        </div>
        <Card title={t("scans.facts")}>
          <Facts
            rows={[
              [t("scans.places"), <Plain key="p" text={(scan.places ?? []).join("\n")} mono most={800} lines />],
              [t("scans.by"), <Plain key="b" text={scan.started_by ?? ""} most={200} />],
              [t("scans.schedule"), scan.schedule ? <Plain key="s" text={scan.schedule} most={80} /> : null],
              [t("scans.note"), scan.note ? <Plain key="n" text={scan.note} most={300} /> : null],
              [t("scans.asked"), scan.asked_ms ? <Time key="a" ms={scan.asked_ms} whole /> : null],
              [t("scans.began"), scan.began_ms ? <Time key="g" ms={scan.began_ms} whole /> : null],
              [t("tasks.ended"), scan.ended_ms ? <Time key="e" ms={scan.ended_ms} whole /> : null],
              [t("scans.lasted"), lasted(scan.running_ms)],
              [t("scans.bytes"), number(progress.bytes)],
              [t("field.cpu_share"), scan.cpu_share !== undefined ? t("scans.percent", { count: scan.cpu_share }) : null],
              [t("scans.bundle"), scan.bundle ? <Plain key="u" text={scan.bundle} mono most={80} /> : null],
              [t("events.fields"), <Link key="f" to={`/events/${event.number}`}>{t("search.toEvent")}</Link>],
            ]}
          />
        </Card>
      </div>
    </div>
  );
}
