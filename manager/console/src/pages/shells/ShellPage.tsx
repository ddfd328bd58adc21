// One remote shell: its terminal while it is open, its recording afterwards, and what is known of it.
import { Button } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { lazy, Suspense, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import { getText, post } from "../../api/client";
import { queries, useTask } from "../../api/queries";
import type { Task } from "../../api/types";
import { Card, Facts } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { Icon } from "../../parts/Icon";
import { Isolation } from "../../parts/Isolation";
import { Stage } from "../../parts/Marks";
import { Empty, Failure, useReason, Waiting } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { Why } from "../../parts/Why";
import { useRole } from "../../shell/session";
import { useSpan } from "../scans/parts";
import { LARGEST, read, type Cast } from "./cast";
import { NotYou, openFor } from "./parts";

// The emulator is fetched by whoever sees a terminal.
const Live = lazy(() => import("./Live"));
const Player = lazy(() => import("./Player"));

export default function ShellPage() {
  const { id = "" } = useParams();
  const { t } = useTranslation();
  const task = useTask(id);
  if (task.isPending) return <Waiting />;
  if (!task.data) return <Failure error={task.error} retry={() => void task.refetch()} />;
  if (task.data.action.action !== "shell") return <Empty title={t("shells.noShell")} hint={t("frame.nothingHint")} />;
  return <Detail key={id} task={task.data} />;
}

function Detail({ task }: { task: Task }) {
  const { t } = useTranslation();
  const { operator, shell } = useRole();
  const reason = useReason();
  const lasted = useSpan();
  const [ending, setEnding] = useState(false);
  // A terminal that was seen stays when the shell ends: what it showed last is read to the end.
  const [live] = useState(!task.ended_ms);
  const [cast, setCast] = useState<Cast | null>(null);
  const end = async (why: string) => {
    try {
      await post(`/api/v1/tasks/${task.id}/cancel`, { reason: why });
      setEnding(false);
      await queries.invalidateQueries({ queryKey: ["task", task.id] });
    } catch (error) {
      notifications.show({ color: "red", message: reason(error) });
    }
  };
  return (
    <div className="page">
      <Isolation host={task.host_id} />
      <Head
        to="/shells"
        back={t("menu.shells")}
        title={<><Stage task={task} /> {t("shells.on")} <Plain text={task.host} most={80} /></>}
        side={
          operator && !task.ended_ms ? (
            <Button size="xs" color="red" variant="light" disabled={Boolean(task.cancel_ms)} onClick={() => setEnding(true)}>
              {t(task.cancel_ms ? "shells.ending" : "shells.end")}
            </Button>
          ) : null
        }
      >
        <p className="dim">
          <Plain text={task.filed_by} most={60} />
          {" · "}
          <Plain text={task.reason} most={300} />
          {" · "}
          <Time ms={task.filed_ms} />
        </p>
      </Head>
      {!shell && <NotYou />}
      {shell && live && !cast && (
        <Suspense fallback={<Waiting />}>
          <Live task={task} />
        </Suspense>
      )}
      {cast && (
        <Suspense fallback={<Waiting />}>
          <Player cast={cast} />
        </Suspense>
      )}
      <div className="two wide">
        <Card title={t("shells.about")}>
          <p className="sentence">{task.observed ? <Plain text={task.observed} most={1000} /> : t("task.waiting")}</p>
          <Facts
            rows={[
              [t("alerts.host"), <Link key="h" to={`/hosts/${task.host_id}`}><Plain text={task.host} most={80} /></Link>],
              [t("shells.mode"), t(task.action.restricted ? "shells.modes.restricted" : "shells.modes.full")],
              [t("tasks.by"), <Plain key="b" text={task.filed_by} most={80} />],
              [t("order.reason"), <Plain key="r" text={task.reason} most={500} />],
              [t("shells.opened"), <Time key="o" ms={task.filed_ms} whole />],
              [t("tasks.ended"), task.ended_ms ? <Time key="e" ms={task.ended_ms} whole /> : null],
              [t("shells.lasted"), lasted(openFor(task))],
              [t("task.cancelled"), task.cancel_by ? <Plain key="c" text={task.cancel_by} most={80} /> : null],
              [t("task.alert"), task.alert ? <Link key="a" to={`/alerts/${task.alert}`}>{t("task.toAlert")}</Link> : null],
              [t("shells.task"), <Link key="t" to={`/tasks/${task.id}`}>{t("order.look")}</Link>],
            ]}
          />
        </Card>
        {shell && (task.ended_ms ? <Recording task={task} played={cast !== null} play={setCast} /> : <Card title={t("shells.recording")}><Empty title={t("shells.goesOn")} hint={t("shells.recordedHint")} /></Card>)}
      </div>
      <Why opened={ending} title={t("shells.end")} effect={t("shells.endEffect")} send={t("shells.end")} close={() => setEnding(false)} done={end} />
    </div>
  );
}

function Recording({ task, played, play }: { task: Task; played: boolean; play: (cast: Cast) => void }) {
  const { t } = useTranslation();
  const explain = useReason();
  const [busy, setBusy] = useState(false);
  const [why, setWhy] = useState("");
  const path = `/api/v1/shells/${task.id}/recording`;
  const fetchIt = async () => {
    setBusy(true);
    setWhy("");
    try {
      const text = await getText(path, LARGEST);
      const cast = text === null ? null : read(text);
      if (cast) play(cast);
      else setWhy(t(text === null ? "shells.tooLarge" : "shells.noCast"));
    } catch (error) {
      setWhy(explain(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <Card title={t("shells.recording")}>
      <div className="padded stack">
        <p className="dim">{t("shells.audited")}</p>
        <div className="actions">
          {!played && (
            <Button size="xs" loading={busy} onClick={() => void fetchIt()}>
              {t("shells.playIt")}
            </Button>
          )}
          <Button size="xs" variant="default" component="a" href={path} download leftSection={<Icon name="download" size={14} />}>
            {t("shells.save")}
          </Button>
        </div>
        <p className="why" role="alert">
          {why}
        </p>
      </div>
    </Card>
  );
}
