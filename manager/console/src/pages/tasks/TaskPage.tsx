// One response task: its four stages with their times, what was observed, what it delivered.
import { Button } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import { post } from "../../api/client";
import { queries, useTask } from "../../api/queries";
import type { Task } from "../../api/types";
import { Card, Facts } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { Icon } from "../../parts/Icon";
import { Isolation } from "../../parts/Isolation";
import { Stage } from "../../parts/Marks";
import { Failure, useReason, Waiting } from "../../parts/Notice";
import { passwordOf } from "../../parts/orders";
import { Plain } from "../../parts/Plain";
import { Steps } from "../../parts/Steps";
import { Time } from "../../parts/Time";
import { Why } from "../../parts/Why";
import { useRole } from "../../shell/session";

export default function TaskPage() {
  const { id = "" } = useParams();
  const task = useTask(id);
  if (task.isPending) return <Waiting />;
  if (!task.data) return <Failure error={task.error} retry={() => void task.refetch()} />;
  return <Detail task={task.data} />;
}

function Detail({ task }: { task: Task }) {
  const { t } = useTranslation();
  const { operator } = useRole();
  const reason = useReason();
  const [cancelling, setCancelling] = useState(false);
  const cancel = async (why: string) => {
    try {
      await post(`/api/v1/tasks/${task.id}/cancel`, { reason: why });
      setCancelling(false);
      await queries.invalidateQueries({ queryKey: ["task", task.id] });
    } catch (error) {
      notifications.show({ color: "red", message: reason(error) });
    }
  };
  const fields = Object.entries(task.action).filter(([name, value]) => name !== "action" && value !== null);
  const shown = (value: unknown) => (typeof value === "string" ? value : JSON.stringify(value));
  return (
    <div className="page">
      <Isolation host={task.host_id} />
      <Head
        to="/tasks"
        back={t("menu.tasks")}
        title={
          <>
            <Stage task={task} /> {t(`action.${task.action.action}`)}
          </>
        }
      >
        <p className="dim">
          <Link to={`/hosts/${task.host_id}`}>
            <Plain text={task.host} most={80} />
          </Link>
          {" · "}
          <Plain text={task.filed_by} most={60} />
          {" · "}
          <Time ms={task.filed_ms} />
        </p>
      </Head>
      {task.action.action === "shell" && <Link to={`/shells/${task.id}`}>{t("shells.toShell")}</Link>}
      {operator && (
        <div className="actions">
          {task.file_size !== null && task.file_size !== undefined && (
            <Button size="xs" component="a" href={`/api/v1/tasks/${task.id}/file`} download leftSection={<Icon name="download" size={14} />}>
              {t("task.download", { bytes: t("bytes", { count: task.file_size }) })}
            </Button>
          )}
          {!task.ended_ms && !task.cancel_ms && (
            <Button size="xs" variant="default" onClick={() => setCancelling(true)}>
              {t("task.cancel")}
            </Button>
          )}
          <Why opened={cancelling} title={t("task.cancel")} effect={t("task.cancelEffect")} send={t("task.cancel")} close={() => setCancelling(false)} done={cancel} />
        </div>
      )}
      <Steps task={task} />
      <div className="two wide">
        <Card title={t("task.result")}>
          <p className="sentence">{task.observed ? <Plain text={task.observed} most={1000} /> : t("task.waiting")}</p>
          {task.result !== null && task.result !== undefined && (
            <pre className="result" tabIndex={0} aria-label={t("task.result")}>
              <Plain text={JSON.stringify(task.result, null, 2)} most={6000} mono lines />
            </pre>
          )}
        </Card>
        <Card title={t("task.order")}>
          <Facts
            rows={[
              [t("order.reason"), <Plain key="r" text={task.reason} most={500} />],
              [t("task.alert"), task.alert ? <Link key="a" to={`/alerts/${task.alert}`}>{t("task.toAlert")}</Link> : null],
              ...fields.map(([name, value]): [string, React.ReactNode] => [t(`field.${name}`, { defaultValue: name }), <Plain key={name} text={shown(value)} most={300} mono />]),
              [t("order.collect.password"), passwordOf(task.id) ? <Plain key="p" text={passwordOf(task.id) ?? ""} mono /> : null],
              [t("task.expires"), task.ended_ms ? null : <Time key="x" ms={task.expires_ms} whole />],
              [t("task.cancelled"), task.cancel_by ? <Plain key="c" text={task.cancel_by} most={60} /> : null],
              [t("evidence.sha256"), task.file_sha256 ? <Plain key="s" text={task.file_sha256} mono /> : null],
            ]}
          />
        </Card>
      </div>
    </div>
  );
}
