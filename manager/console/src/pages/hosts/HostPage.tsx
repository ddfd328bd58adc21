// One host: how it stands and what shows it, what happened there, what can be done.
import { Button } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import { post } from "../../api/client";
import { queries, useHost, useSome } from "../../api/queries";
import type { Alert, Host, Task } from "../../api/types";
import { AlertEntry, TaskEntry } from "../../parts/Entry";
import { Card, Facts } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { Isolation } from "../../parts/Isolation";
import { AlertState, Health } from "../../parts/Marks";
import { Empty, Failure, useReason, Waiting } from "../../parts/Notice";
import { OrderDialog, type Order, type Wish } from "../../parts/OrderDialog";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { Why } from "../../parts/Why";
import { useRole } from "../../shell/session";
import { OpenShell } from "../shells/OpenShell";

const SOME = 10;

export default function HostPage() {
  const { id = "" } = useParams();
  const host = useHost(id);
  if (host.isPending) return <Waiting />;
  if (!host.data) return <Failure error={host.error} retry={() => void host.refetch()} />;
  return <Detail host={host.data} />;
}

function Detail({ host }: { host: Host }) {
  const { t } = useTranslation();
  const status = host.heartbeat?.status;
  const bundle = status?.bundle;
  const text = (value: string | null | undefined) => (value ? <Plain text={value} most={160} /> : null);
  return (
    <div className="page">
      <Isolation host={host.id} />
      <Head
        to="/hosts"
        back={t("menu.hosts")}
        title={<><Health host={host} /> <Plain text={host.name} most={100} /></>}
      >
        <p className="dim">
          {t(host.connected ? "host.connected" : "host.away")}
          {" · "}
          {t("hosts.seen")} <Time ms={host.seen_ms} />
          {" · "}
          {t("hosts.proven")} <Time ms={host.proven_ms} />
        </p>
      </Head>
      <Actions host={host} />
      {host.cloned_ms && (
        <div className="banner cut" role="status">
          <span>
            {t("host.cloned")} <Time ms={host.cloned_ms} />
          </span>
        </div>
      )}
      {host.reasons.length > 0 && !host.revoked_ms && (
        <Card title={t("host.why")}>
          <ul className="reasons">
            {host.reasons.map((reason, index) => (
              <li key={index}>
                <b>
                  <Plain text={reason.name} most={120} />
                </b>{" "}
                <Plain text={reason.evidence} most={400} />
              </li>
            ))}
          </ul>
        </Card>
      )}
      <div className="two wide">
        <div className="column">
          <Capabilities host={host} />
          <Alerts host={host} />
        </div>
        <div className="column">
          <Card title={t("host.facts")}>
            <Facts
              rows={[
                [t("hosts.system"), text(host.facts.system)],
                [t("hosts.kernel"), text(`${host.facts.kernel ?? ""} ${host.facts.architecture ?? ""}`.trim())],
                [t("hosts.addresses"), text((host.facts.addresses ?? []).join(", "))],
                [t("hosts.version"), text(host.version ?? host.facts.version)],
                [t("host.mode"), text(status?.mode)],
                [t("hosts.group"), text(host.group)],
                [t("host.policy"), <OwnPolicy key="p" host={host} />],
                [t("hosts.isolated"), host.isolated ? t("yes") : t("no")],
                [t("hosts.bundle"), bundle?.loaded_ms ? <Time ms={bundle.loaded_ms} /> : null],
                [t("host.rules"), bundle ? t("host.ruleCounts", { hashes: bundle.hashes ?? 0, yara: bundle.yara_rules ?? 0 }) : null],
                [t("host.refused"), text(bundle?.refused)],
                [t("hosts.quarantined"), host.quarantined ?? null],
                [t("host.outbox"), host.heartbeat?.outbox?.events ?? null],
                [t("host.eventsRefused"), host.events_refused || null],
                [t("hosts.enrolled"), <Time key="e" ms={host.enrolled_ms} />],
                [t("host.machine"), text(host.facts.machine_id)],
              ]}
            />
          </Card>
          <Tasks host={host} />
        </div>
      </div>
    </div>
  );
}

/** Which policy it is to run, and which version it says that it runs. */
function OwnPolicy({ host }: { host: Host }) {
  const { t } = useTranslation();
  const { policy } = host;
  if (!policy?.id) return <span className="dim">{t("host.noPolicy")}</span>;
  return (
    <>
      <Link to={`/policies/${policy.id}`}>
        <Plain text={policy.name ?? ""} most={80} />
      </Link>{" "}
      {policy.running_id === policy.id ? t("policies.runs", { version: policy.running }) : t("policies.runsNone")}
      {policy.why && (
        <small>
          <Plain text={policy.why} most={300} />
        </small>
      )}
    </>
  );
}

function Actions({ host }: { host: Host }) {
  const { t } = useTranslation();
  const { operator, admin, shell } = useRole();
  const [opening, setOpening] = useState(false);
  const reason = useReason();
  const [order, setOrder] = useState<Order | null>(null);
  const [revoking, setRevoking] = useState(false);
  if (!operator || host.revoked_ms) return null;
  const ask = (wish: Wish) => setOrder({ wish, targets: [{ host_id: host.id, host: host.name }] });
  const revoke = async (why: string) => {
    try {
      await post(`/api/v1/hosts/${host.id}/revoke`, { reason: why });
      setRevoking(false);
      await queries.invalidateQueries({ queryKey: ["host", host.id] });
    } catch (error) {
      notifications.show({ color: "red", message: reason(error) });
    }
  };
  return (
    <div className="actions">
      {host.isolated ? (
        <Button size="xs" variant="default" onClick={() => ask({ kind: "release" })}>
          {t("order.release.do")}
        </Button>
      ) : (
        <Button size="xs" variant="light" color="red" onClick={() => ask({ kind: "isolate" })}>
          {t("order.isolate.do")}
        </Button>
      )}
      <Button size="xs" variant="default" onClick={() => ask({ kind: "collect", path: "" })}>
        {t("order.collect.do")}
      </Button>
      <Button size="xs" variant="default" onClick={() => ask({ kind: "process_list" })}>
        {t("order.process_list.do")}
      </Button>
      <Button size="xs" variant="default" onClick={() => ask({ kind: "diagnostics" })}>
        {t("order.diagnostics.do")}
      </Button>
      {shell && (
        <Button size="xs" variant="default" disabled={!host.connected} onClick={() => setOpening(true)}>
          {t("shells.open")}
        </Button>
      )}
      <Button size="xs" variant="subtle" component={Link} to={`/shells?host=${host.id}&period=all`}>
        {t("shells.ofHost")}
      </Button>
      {admin && (
        <>
          <span className="gap" />
          <Button size="xs" variant="subtle" color="red" onClick={() => setRevoking(true)}>
            {t("host.revoke")}
          </Button>
        </>
      )}
      <Why opened={revoking} title={t("host.revoke")} effect={t("host.revokeEffect")} send={t("host.revoke")} close={() => setRevoking(false)} done={revoke} />
      <OrderDialog order={order} close={() => setOrder(null)} />
      <OpenShell opened={opening} close={() => setOpening(false)} host={{ id: host.id, name: host.name }} />
    </div>
  );
}

function Capabilities({ host }: { host: Host }) {
  const { t } = useTranslation();
  const list = host.heartbeat?.capabilities ?? [];
  const rank = { red: 0, ok: 1, off: 2 };
  return (
    <Card title={t("host.capabilities")}>
      {list.length === 0 ? (
        <Empty title={t("host.silent")} hint={t("host.silentHint")} />
      ) : (
        <ul className="capabilities">
          {[...list].sort((a, b) => (rank[a.state] ?? 0) - (rank[b.state] ?? 0)).map((one) => (
            <li key={one.name}>
              <span className={`mark capability-${one.state}`}>{t(`capability.${one.state}`)}</span>
              <span className="what">
                <Plain text={one.name} most={120} />
                <small>
                  <Plain text={one.evidence} most={240} />
                </small>
              </span>
              <Time ms={one.time_ms} />
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}

function Alerts({ host }: { host: Host }) {
  const { t } = useTranslation();
  const alerts = useSome<Alert>("alerts", { host: host.id, from_ms: 0, limit: SOME });
  return (
    <Card title={t("menu.alerts")} side={<Link to={`/alerts?state=any&host=${host.id}`}>{t("overview.all")}</Link>}>
      {alerts.data?.items.length ? (
        <ul className="list">
          {alerts.data.items.map((alert) => (
            <AlertEntry key={alert.id} alert={alert}>
              <AlertState alert={alert} />
            </AlertEntry>
          ))}
        </ul>
      ) : (
        <Empty title={t("host.noAlerts")} hint={t("alerts.noneHint")} />
      )}
    </Card>
  );
}

function Tasks({ host }: { host: Host }) {
  const { t } = useTranslation();
  const tasks = useSome<Task>("tasks", { host: host.id, from_ms: 0, limit: SOME });
  return (
    <Card title={t("menu.tasks")} side={<Link to={`/tasks?host=${host.id}`}>{t("overview.all")}</Link>}>
      {tasks.data?.items.length ? (
        <ul className="list">
          {tasks.data.items.map((task) => (
            <TaskEntry key={task.id} task={task} under={task.reason} />
          ))}
        </ul>
      ) : (
        <Empty title={t("tasks.none")} hint={t("tasks.noneHint")} />
      )}
    </Card>
  );
}
