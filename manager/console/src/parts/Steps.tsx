// The stages of a response task, each with its time: queued → delivered → executed → verified, or where
// else it ended.
import { useTranslation } from "react-i18next";
import type { Task } from "../api/types";
import { Time } from "./Time";

export function Steps({ task }: { task: Task }) {
  const { t } = useTranslation();
  const failed = task.ended_ms && task.stage !== "verified";
  const steps: [string, number | null | undefined][] = [
    ["queued", task.filed_ms],
    ["delivered", task.delivered_ms],
    ["executed", task.executed_ms],
    failed ? [task.stage, task.ended_ms] : ["verified", task.ended_ms],
  ];
  return (
    <ol className="steps" aria-label={t("tasks.stage")}>
      {steps.map(([name, ms]) => (
        <li key={name} className={ms ? (name === task.stage && failed ? "failed" : "done") : ""} aria-current={name === task.stage ? "step" : undefined}>
          <b>{t(`stage.${name}`)}</b>
          {ms ? <Time ms={ms} whole /> : <span className="dim">{t("task.notYet")}</span>}
        </li>
      ))}
    </ol>
  );
}
