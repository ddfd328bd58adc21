// A line of a card's list that leads to one thing: its mark, what it is and a word below, and what
// stands at its side.
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import type { Alert, Task } from "../api/types";
import { Level, Stage } from "./Marks";
import { Plain } from "./Plain";
import { Time } from "./Time";

interface Shown {
  to: string;
  mark: ReactNode;
  what: ReactNode;
  under?: ReactNode;
  children?: ReactNode;
}

export const Entry = ({ to, mark, what, under, children }: Shown) => (
  <li>
    <Link to={to}>
      {mark}
      <span className="what">
        {what}
        {under && <small>{under}</small>}
      </span>
      {children}
    </Link>
  </li>
);

/** An alert; `under` is a host's or somebody's text. */
export const AlertEntry = ({ alert, under = "", children }: { alert: Alert; under?: string; children?: ReactNode }) => (
  <Entry to={`/alerts/${alert.id}`} mark={<Level level={alert.level} />} what={<Plain text={alert.title} most={160} />}
    under={under && <Plain text={under} most={60} />}>
    {children}
    <Time ms={alert.last_ms} />
  </Entry>
);

/** A response task; `under` likewise. */
export function TaskEntry({ task, under }: { task: Task; under: string }) {
  const { t } = useTranslation();
  return (
    <Entry to={`/tasks/${task.id}`} mark={<Stage task={task} />} what={t(`action.${task.action.action}`)} under={<Plain text={under} most={160} />}>
      <Time ms={task.filed_ms} />
    </Entry>
  );
}
