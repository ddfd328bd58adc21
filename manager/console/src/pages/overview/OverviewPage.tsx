// What needs a person now, and how the fleet stands.
import { Badge } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { Link, useNavigate } from "react-router";
import { useOverview, useSome } from "../../api/queries";
import { LEVELS, type Alert, type Host, type Task } from "../../api/types";
import { Bars } from "../../parts/Bars";
import { AlertEntry, Entry, TaskEntry } from "../../parts/Entry";
import { Card } from "../../parts/Facts";
import { Health, Level } from "../../parts/Marks";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { Period, usePeriod } from "../../parts/Period";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { useRole } from "../../shell/session";

const USUAL = "24h";
const SOME = 8;

export default function OverviewPage() {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const [, span] = usePeriod(USUAL);
  const overview = useOverview({ from_ms: span.from_ms, until_ms: span.until_ms });
  if (overview.isPending) return <Waiting />;
  if (!overview.data) return <Failure error={overview.error} retry={() => void overview.refetch()} />;
  const { hosts, open, tasks, now_ms } = overview.data;
  const all = hosts.green + hosts.red + hosts.new;
  const opened = Object.values(open).reduce((a, b) => a + b, 0);
  // "Since ever" begins with the first alert.
  const begin = span.from_ms || (overview.data.bars[0]?.from_ms ?? now_ms - 86_400_000);
  return (
    <div className="page">
      <header className="head">
        <h1>{t("menu.overview")}</h1>
        <Period usual={USUAL} />
      </header>
      <div className="tiles">
        <Link to="/hosts?health=red" className={hosts.red ? "tile bad" : "tile"}>
          <b>{hosts.red}</b>
          <span>{t("overview.red", { count: hosts.red })}</span>
        </Link>
        <Link to="/hosts?health=green" className="tile good">
          <b>{hosts.green}</b>
          <span>{t("overview.green", { count: hosts.green })}</span>
        </Link>
        <Link to="/hosts" className="tile">
          <b>{t("overview.of", { count: hosts.connected, all })}</b>
          <span>{t("overview.connected")}</span>
        </Link>
        <Link to="/alerts" className={opened ? "tile warn" : "tile"}>
          <b>{opened}</b>
          <span>{t("overview.open", { count: opened })}</span>
        </Link>
        <Link to="/tasks?stage=open" className="tile">
          <b>{tasks}</b>
          <span>{t("overview.tasks", { count: tasks })}</span>
        </Link>
      </div>
      <Card
        title={t("overview.over")}
        side={
          <span className="levels">
            {LEVELS.filter((level) => open[level]).map((level) => (
              <Link key={level} to={`/alerts?level=${level}`}>
                <Level level={level} /> <span>{open[level]}</span>
              </Link>
            ))}
          </span>
        }
      >
        <Bars overview={overview.data} from={begin} until={span.until_ms ?? now_ms}
          choose={(from, until) => void navigate(`/alerts?state=any&period=${from}-${until}`)} />
        <p className="dim hint">{t("overview.brush")}</p>
      </Card>
      <div className="two">
        <Newest />
        <div className="column">
          <Fleet red={hosts.red} all={all} />
          <Running />
        </div>
      </div>
    </div>
  );
}

function Newest() {
  const { t } = useTranslation();
  const alerts = useSome<Alert>("alerts", { state: "new", from_ms: 0, limit: 12 });
  return (
    <Card title={t("overview.now")} side={<Link to="/alerts">{t("overview.all")}</Link>}>
      {alerts.isPending ? (
        <Waiting />
      ) : alerts.data?.items.length ? (
        <ul className="list">
          {alerts.data.items.map((alert) => (
            <AlertEntry key={alert.id} alert={alert} under={alert.host}>
              {alert.count > 1 && <Badge size="sm" variant="default">{`×${alert.count}`}</Badge>}
            </AlertEntry>
          ))}
        </ul>
      ) : (
        <Empty title={t("overview.calm")} hint={t("overview.calmHint")} />
      )}
    </Card>
  );
}

function Fleet({ red, all }: { red: number; all: number }) {
  const { t } = useTranslation();
  const { admin } = useRole();
  const hosts = useSome<Host>("hosts", red ? { health: "red", limit: SOME } : { limit: SOME });
  const list = hosts.data?.items.filter((host) => !host.revoked_ms) ?? [];
  return (
    <Card title={t(red ? "overview.troubled" : "overview.hosts")} side={<Link to={red ? "/hosts?health=red" : "/hosts"}>{t("overview.all")}</Link>}>
      {all === 0 && !hosts.isPending ? (
        <Empty title={t("hosts.none")} hint={t(admin ? "hosts.noneHint" : "hosts.noneAsk")}>
          {admin && <Link to="/hosts?add=1">{t("hosts.add")}</Link>}
        </Empty>
      ) : (
        <ul className="list">
          {list.map((host) => (
            <Entry key={host.id} to={`/hosts/${host.id}`} mark={<Health host={host} />} what={<Plain text={host.name} most={60} />}
              under={
                host.reasons[0] ? (
                  <Plain text={`${host.reasons[0].name}: ${host.reasons[0].evidence}`} most={120} />
                ) : (
                  <>
                    {t("hosts.proven")} <Time ms={host.proven_ms} />
                  </>
                )
              }>
              {host.isolated && <span className="mark cut">{t("hosts.isolated")}</span>}
              <Time ms={host.seen_ms} />
            </Entry>
          ))}
        </ul>
      )}
    </Card>
  );
}

function Running() {
  const { t } = useTranslation();
  const tasks = useSome<Task>("tasks", { from_ms: 0, limit: SOME });
  const list = tasks.data?.items ?? [];
  return (
    <Card title={t("overview.running")} side={<Link to="/tasks">{t("overview.all")}</Link>}>
      {list.length === 0 ? (
        <Empty title={t("tasks.none")} hint={t("tasks.noneHint")} />
      ) : (
        <ul className="list">
          {list.map((task) => (
            <TaskEntry key={task.id} task={task} under={task.host} />
          ))}
        </ul>
      )}
    </Card>
  );
}
