// Small signs of state. Colour never says anything alone: the word stands beside it.
import type { Alert, Host, Task } from "../api/types";
import { useWords } from "../words/context";

export function Level({ level }: { level: string }) {
  const { t } = useWords();
  return <span className={`mark level-${level}`}>{t(`level.${level}`, { defaultValue: level })}</span>;
}

export function AlertState({ alert }: { alert: Alert }) {
  const { t } = useWords();
  return (
    <span className={`mark state-${alert.state}`}>
      {alert.resolution ? t(`resolution.${alert.resolution}`) : t(`state.${alert.state}`)}
    </span>
  );
}

export function Health({ host }: { host: Host }) {
  const { t } = useWords();
  const health = host.revoked_ms ? "revoked" : host.health;
  return <span className={`mark health-${health}`}>{t(`health.${health}`)}</span>;
}

export function Stage({ task }: { task: Task }) {
  const { t } = useWords();
  return <span className={`mark stage-${task.stage}`}>{t(`stage.${task.stage}`)}</span>;
}
