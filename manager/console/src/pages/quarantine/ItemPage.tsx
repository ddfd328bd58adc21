// One quarantined file: what it is, how it came here, what was done with it and what came of that, as
// its host observed it.
import { Button } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import { useEvent, useItem, useSome } from "../../api/queries";
import type { Item, Task } from "../../api/types";
import { Copy } from "../../parts/Copy";
import { Card, Facts } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { Icon } from "../../parts/Icon";
import { Isolation } from "../../parts/Isolation";
import { Stage } from "../../parts/Marks";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { OrderDialog, type Order } from "../../parts/OrderDialog";
import { passwordOf } from "../../parts/orders";
import { Plain } from "../../parts/Plain";
import { Steps } from "../../parts/Steps";
import { Time } from "../../parts/Time";
import { useRole } from "../../shell/session";
import { Evidence } from "../alerts/Evidence";
import { ItemActions, ItemState } from "./parts";

/** Tasks of the host that are looked through for this file's. */
const TASKS = 500;

export default function ItemPage() {
  const { host = "", item = "" } = useParams();
  const found = useItem(host, item);
  if (found.isPending) return <Waiting />;
  if (!found.data) return <Failure error={found.error} retry={() => void found.refetch()} />;
  return <Detail item={found.data} />;
}

function Detail({ item }: { item: Item }) {
  const { t } = useTranslation();
  const { operator } = useRole();
  const [order, setOrder] = useState<Order | null>(null);
  const hash = (text: string) =>
    text && (
      <span className="copied">
        <Plain text={text} mono most={128} />
        <Copy text={text} />
      </span>
    );
  return (
    <div className="page">
      <Isolation host={item.host_id} />
      <Head
        to="/quarantine"
        back={t("menu.quarantine")}
        title={<Plain text={item.path} most={200} />}
        side={<ItemState state={item.state} />}
      >
        <p className="dim">
          <Link to={`/hosts/${item.host_id}`}>
            <Plain text={item.host} most={80} />
          </Link>
          {" · "}
          <Plain text={item.signature} most={120} />
          {" · "}
          <Time ms={item.sealed_ms} />
        </p>
      </Head>
      {operator && (
        <div className="actions">
          <ItemActions items={[item]} size="xs" ask={setOrder} />
          <OrderDialog order={order} close={() => setOrder(null)} />
        </div>
      )}
      <div className="two wide">
        <div className="column">
          <Tasks item={item} />
          {item.event && <Detection number={item.event} host={item.host_id} />}
        </div>
        <div className="column">
          <Card title={t("quarantine.file")}>
            <Facts
              rows={[
                [t("alerts.state"), <ItemState key="s" state={item.state} />],
                [t("quarantine.since"), <Time key="i" ms={item.state_ms} whole />],
                [t("quarantine.sealed"), <Time key="t" ms={item.sealed_ms} whole />],
                [t("evidence.path"), hash(item.path)],
                [t("evidence.signature"), <Plain key="n" text={item.signature} most={200} />],
                [t("evidence.size"), t("bytes", { count: item.size })],
                [t("evidence.sha256"), hash(item.sha256)],
                [t("evidence.md5"), hash(item.md5)],
                [t("field.item"), hash(item.item)],
                [t("quarantine.same"), <Link key="l" to={`/quarantine?state=any&sha256=${encodeURIComponent(item.sha256)}`}>{t("quarantine.sameLook")}</Link>],
              ]}
            />
          </Card>
        </div>
      </div>
    </div>
  );
}

function Detection({ number, host }: { number: string; host: string }) {
  const { t } = useTranslation();
  const event = useEvent(number);
  // Its event may have been kept for less long than the file.
  if (!event.data) return null;
  return (
    <Card title={t("quarantine.detection")} side={<Link to={`/events/${number}`}>{t("quarantine.toEvent")}</Link>}>
      <Evidence evidence={{ ...event.data.event, quarantine_id: null }} host={host} />
    </Card>
  );
}

/** What was ordered for this file, the newest with its stages. */
function Tasks({ item }: { item: Item }) {
  const { t } = useTranslation();
  const { operator } = useRole();
  const tasks = useSome<Task>("tasks", { host: item.host_id, from_ms: 0, limit: TASKS });
  const own = (tasks.data?.items ?? []).filter((task) => task.action.item === item.item);
  const [newest, ...older] = own;
  return (
    <Card title={t("quarantine.done")}>
      {!newest ? (
        <Empty title={t("quarantine.untouched")} hint={t(operator ? "quarantine.untouchedHint" : "quarantine.untouchedLook")} />
      ) : (
        <div className="stack padded">
          <Line task={newest} />
          <Steps task={newest} />
          {newest.observed && (
            <p>
              <Plain text={newest.observed} most={400} />
            </p>
          )}
        </div>
      )}
      {older.length > 0 && (
        <ul className="list">
          {older.map((task) => (
            <li key={task.id} className="padded">
              <Line task={task} />
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}

function Line({ task }: { task: Task }) {
  const { t } = useTranslation();
  const { operator } = useRole();
  const password = passwordOf(task.id);
  const file = task.file_size !== null && task.file_size !== undefined;
  return (
    <div className="actions">
      <Stage task={task} />
      <Link to={`/tasks/${task.id}`}>{t(task.action.allow === true ? "order.restore_allow.do" : `action.${task.action.action}`)}</Link>
      <span className="dim">
        <Plain text={task.filed_by} most={60} /> · <Time ms={task.filed_ms} />
      </span>
      {file && operator && (
        <Button size="compact-sm" component="a" href={`/api/v1/tasks/${task.id}/file`} download leftSection={<Icon name="download" size={14} />}>
          {t("quarantine.zip", { bytes: t("bytes", { count: task.file_size ?? 0 }) })}
        </Button>
      )}
      {file && operator && password !== undefined && (
        <span className="copied">
          <span className="dim">{t("order.collect.password")}</span> <code data-password>{password}</code>
          <Copy text={password} />
        </span>
      )}
    </div>
  );
}
