// One event of a host: what it was, the process and who started it, and every field that was told.
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import { useAlertOf, useEvent } from "../../api/queries";
import type { StoredEvent } from "../../api/types";
import { Card, Facts } from "../../parts/Facts";
import { Fields } from "../../parts/Fields";
import { Head } from "../../parts/Head";
import { Isolation } from "../../parts/Isolation";
import { AlertState, Level } from "../../parts/Marks";
import { Failure, Waiting } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { Evidence } from "../alerts/Evidence";
import { Disposition } from "./columns";
import { summary } from "./summary";

export default function EventPage() {
  const { number = "" } = useParams();
  const event = useEvent(number);
  if (event.isPending) return <Waiting />;
  if (!event.data) return <Failure error={event.error} retry={() => void event.refetch()} />;
  return <Detail event={event.data} />;
}

function Detail({ event }: { event: StoredEvent }) {
  const { t } = useTranslation();
  const told = event.event;
  const malware = event.kind === "malware";
  return (
    <div className="page">
      <Isolation host={event.host_id} />
      <Head
        to={malware ? "/events" : "/search"}
        back={t(malware ? "menu.events" : "menu.search")}
        title={<Plain text={summary(event)} most={200} />}
        side={<Disposition text={told.disposition} />}
      >
        <p className="dim">
          <Link to={`/hosts/${event.host_id}`}>
            <Plain text={event.host} most={80} />
          </Link>
          {" · "}
          {t(`eventKind.${event.kind}`, { defaultValue: event.kind })}
          {" · "}
          <Time ms={event.time_ms} whole />
        </p>
      </Head>
      <div className="two wide">
        <div className="column">
          <Card title={t("alert.what")}>
            {malware && told.disposition && <p className="sentence">{t(`disposition.${told.disposition}`, { defaultValue: "" })}</p>}
            <Evidence evidence={told} host={event.host_id} />
          </Card>
        </div>
        <div className="column">
          {malware && <AlertOf event={event} />}
          <Card title={t("events.told")}>
            <Facts
              rows={[
                [t("evidence.time"), <Time key="t" ms={event.time_ms} whole />],
                [t("events.received"), <Time key="r" ms={event.received_ms} whole />],
                [t("events.decision"), told.decision ? <Plain key="d" text={told.decision} most={60} /> : null],
                [t("events.modified"), told.file?.modified_ms ? <Time key="m" ms={told.file.modified_ms} whole /> : null],
                [t("events.changed"), told.file?.changed_ms ? <Time key="c" ms={told.file.changed_ms} whole /> : null],
                [t("events.sha1"), told.sha1 ? <Plain key="s" text={told.sha1} mono /> : null],
                [t("events.number"), event.number],
              ]}
            />
          </Card>
          <Card title={t("events.fields")}>
            <Fields event={event} />
          </Card>
        </div>
      </div>
    </div>
  );
}

function AlertOf({ event }: { event: StoredEvent }) {
  const { t } = useTranslation();
  const alert = useAlertOf(event);
  if (!alert.data) return null;
  return (
    <Card title={t("events.alert")}>
      <ul className="list">
        <li>
          <Link to={`/alerts/${alert.data.id}`}>
            <Level level={alert.data.level} />
            <span className="what">
              <Plain text={alert.data.title} most={160} />
            </span>
            <AlertState alert={alert.data} />
          </Link>
        </li>
      </ul>
    </Card>
  );
}
