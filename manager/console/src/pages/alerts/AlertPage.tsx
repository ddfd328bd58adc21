// One alert: what happened in a sentence, what shows it, what to do, what was done.
import { Button, Group, Menu, Textarea } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import { post } from "../../api/client";
import { queries, useAlert, useAlertEvents, useHost } from "../../api/queries";
import { RESOLUTIONS, type Alert, type AlertDetail } from "../../api/types";
import { TaskEntry } from "../../parts/Entry";
import { Card } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { Isolation } from "../../parts/Isolation";
import { AlertState, Level } from "../../parts/Marks";
import { Failure, useReason, Waiting } from "../../parts/Notice";
import { OrderDialog, type Order, type Wish } from "../../parts/OrderDialog";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { commandLine, visible } from "../../parts/visible";
import { useRole } from "../../shell/session";
import { OpenShell } from "../shells/OpenShell";
import { useEdit } from "./actions";
import { Evidence } from "./Evidence";

export default function AlertPage() {
  const { id = "" } = useParams();
  const alert = useAlert(id);
  if (alert.isPending) return <Waiting />;
  if (!alert.data) return <Failure error={alert.error} retry={() => void alert.refetch()} />;
  return <Detail detail={alert.data} />;
}

/** What happened, in one sentence. */
function useSentence() {
  const { t } = useTranslation();
  return ({ evidence, kind, title, host }: Alert): string => {
    if (kind === "malware" && evidence?.path) {
      const values = { what: visible(evidence.signature?.name ?? ""), path: visible(evidence.path), host: visible(host) };
      const done = t(`disposition.${evidence.disposition}`, { defaultValue: "" });
      const who = evidence.process?.exe ? t("alert.by", { program: visible(evidence.process.exe), user: visible(evidence.process.user ?? "") }) : "";
      return [t("alert.malware", values), who, done].filter(Boolean).join(" ");
    }
    if (kind === "model" && evidence?.process) {
      const program = visible(evidence.process.script ?? evidence.process.exe ?? "");
      return t("alert.model", { program, user: visible(evidence.process.user ?? ""), host: visible(host), title: visible(evidence.title ?? title) });
    }
    return visible(title);
  };
}

function Detail({ detail }: { detail: AlertDetail }) {
  const { t } = useTranslation();
  const { alert, tasks } = detail;
  const sentence = useSentence();
  return (
    <div className="page">
      <Isolation host={alert.host_id} />
      <Head
        to="/alerts"
        back={t("menu.alerts")}
        title={<><Level level={alert.level} /> <Plain text={alert.title} most={160} /></>}
        side={<AlertState alert={alert} />}
      >
        <p className="dim">
          <Link to={`/hosts/${alert.host_id}`}>
            <Plain text={alert.host} most={80} />
          </Link>
          {" · "}
          {t(`kind.${alert.kind}`)}
          {alert.attack.map((id) => ` · ${visible(id)}`)}
          {" · "}
          {t("alert.times", { count: alert.count })}
          {" · "}
          <Time ms={alert.last_ms} />
          {alert.simulated && ` · ${t("alert.simulated")}`}
        </p>
      </Head>
      <Actions alert={alert} />
      <div className="two wide">
        <div className="column">
          <Card title={t("alert.what")} side={<ToProfile alert={alert} />}>
            <p className="sentence">{sentence(alert)}</p>
            {alert.evidence && <Evidence evidence={alert.evidence} host={alert.host_id} />}
          </Card>
        </div>
        <div className="column">
          {alert.evidence?.advice && (
            <Card title={t("alert.advice")}>
              <p className="text">
                <Plain text={alert.evidence.advice} most={1500} lines />
              </p>
            </Card>
          )}
          {tasks.length > 0 && (
            <Card title={t("menu.tasks")}>
              <ul className="list">
                {tasks.map((task) => (
                  <TaskEntry key={task.id} task={task} under={task.observed || task.reason} />
                ))}
              </ul>
            </Card>
          )}
          <Story detail={detail} />
        </div>
      </div>
    </div>
  );
}

/** Around an alert's detections, what its process did before and after is shown, ms. */
const AROUND = 3_600_000;

function ToProfile({ alert }: { alert: Alert }) {
  const { t } = useTranslation();
  const key = alert.evidence?.process?.key;
  if (!key) return null;
  const period = `${Math.max(0, alert.first_ms - AROUND)}-${alert.last_ms + AROUND}`;
  return <Link to={`/hosts/${alert.host_id}/processes/${key.pid}-${key.start_ns}?period=${period}`}>{t("profile.open")}</Link>;
}

function Actions({ alert }: { alert: Alert }) {
  const { t } = useTranslation();
  const { operator, name, shell } = useRole();
  const { edit, take } = useEdit();
  const [opening, setOpening] = useState(false);
  const [order, setOrder] = useState<Order | null>(null);
  const host = useHost(alert.host_id);
  if (!operator) return null;
  const ask = (wish: Wish) => setOrder({ wish, targets: [{ host_id: alert.host_id, host: alert.host, alert: alert.id }] });
  const process = alert.evidence?.process;
  const program = alert.evidence?.path ?? process?.script ?? process?.exe;
  const mine = alert.state === "in_progress" && alert.assignee === name;
  return (
    <div className="actions">
      {alert.state !== "resolved" && !mine && (
        <Button size="xs" onClick={() => void take([alert])}>
          {t("alerts.take")}
        </Button>
      )}
      {alert.state === "resolved" ? (
        <Button size="xs" variant="default" onClick={() => void edit([alert], { state: "new" })}>
          {t("alerts.reopen")}
        </Button>
      ) : (
        <Menu>
          <Menu.Target>
            <Button size="xs" variant="default">
              {t("alerts.resolve")}
            </Button>
          </Menu.Target>
          <Menu.Dropdown>
            {RESOLUTIONS.map((resolution) => (
              <Menu.Item key={resolution} onClick={() => void edit([alert], { state: "resolved", resolution })}>
                {t(`resolution.${resolution}`)}
              </Menu.Item>
            ))}
          </Menu.Dropdown>
        </Menu>
      )}
      <span className="gap" />
      {host.data?.isolated ? (
        <Button size="xs" variant="default" onClick={() => ask({ kind: "release" })}>
          {t("order.release.do")}
        </Button>
      ) : (
        <Button size="xs" variant="light" color="red" onClick={() => ask({ kind: "isolate" })}>
          {t("order.isolate.do")}
        </Button>
      )}
      {process?.key && alert.kind !== "malware" && (
        <Button size="xs" variant="light" color="red"
          onClick={() => process.key && ask({ kind: "kill", process: process.key, command: commandLine(process.args ?? [process.exe ?? ""]) })}>
          {t("order.kill.do")}
        </Button>
      )}
      <Button size="xs" variant="default" onClick={() => ask({ kind: "collect", path: program ?? "" })}>
        {t("order.collect.do")}
      </Button>
      {shell && (
        <Button size="xs" variant="default" disabled={!host.data?.connected} onClick={() => setOpening(true)}>
          {t("shells.open")}
        </Button>
      )}
      <OrderDialog order={order} close={() => setOrder(null)} />
      <OpenShell opened={opening} close={() => setOpening(false)} host={{ id: alert.host_id, name: alert.host }} alert={alert.id} />
    </div>
  );
}

/** What was detected and what people said, newest first, and a place to say more. */
function Story({ detail }: { detail: AlertDetail }) {
  const { t } = useTranslation();
  const { operator } = useRole();
  const reason = useReason();
  const events = useAlertEvents(detail.alert.id);
  const [text, setText] = useState("");
  const note = async () => {
    try {
      await post(`/api/v1/alerts/${detail.alert.id}/notes`, { text });
      setText("");
      await queries.invalidateQueries({ queryKey: ["alert", detail.alert.id] });
    } catch (error) {
      notifications.show({ color: "red", message: reason(error) });
    }
  };
  const lines = [
    ...detail.notes.map((one, index) => ({ key: `n${index}`, ms: one.time_ms, who: one.author, text: one.text })),
    ...(events.data?.items ?? []).map((one) => {
      const { process, path, title } = one.event;
      const what = process?.args ? commandLine(process.args) : (path ?? title ?? "");
      return { key: one.number, ms: one.time_ms, who: t("alert.detected"), text: what };
    }),
  ].sort((a, b) => b.ms - a.ms);
  return (
    <Card title={t("alert.story")}>
      {operator && (
        <form
          className="note"
          onSubmit={(event) => {
            event.preventDefault();
            void note();
          }}
        >
          <Textarea aria-label={t("alert.note")} placeholder={t("alert.note")} value={text} autosize minRows={1} maxRows={8} maxLength={10_000}
            onChange={(event) => setText(event.currentTarget.value)} />
          <Group justify="flex-end">
            {text.trim() !== "" && (
              <Button size="compact-sm" type="submit">
                {t("alert.addNote")}
              </Button>
            )}
          </Group>
        </form>
      )}
      <ol className="story">
        {lines.map((line) => (
          <li key={line.key}>
            <Time ms={line.ms} />
            <div>
              <small>
                <Plain text={line.who} most={60} />
              </small>
              <Plain text={line.text} most={300} lines={line.key.startsWith("n")} />
            </div>
          </li>
        ))}
      </ol>
      {events.data?.next && <p className="dim hint">{t("alert.moreEvents", { count: 100 })}</p>}
    </Card>
  );
}
