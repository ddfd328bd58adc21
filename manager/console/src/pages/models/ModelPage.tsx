// One detection model: what it looks for, its rule, how to prove it on a host, what it found.
import { Button } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import { useModel, usePolicies, useSome } from "../../api/queries";
import type { Alert, ModelDetail, Task } from "../../api/types";
import { Entry } from "../../parts/Entry";
import { Card, Facts } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { AlertState, Level, Stage } from "../../parts/Marks";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { useRole } from "../../shell/session";
import { Simulate } from "./Simulate";

export default function ModelPage() {
  const { id = "" } = useParams();
  const model = useModel(id);
  if (model.isPending) return <Waiting />;
  if (!model.data) return <Failure error={model.error} retry={() => void model.refetch()} />;
  return <Detail detail={model.data} />;
}

/** Alerts that are shown, and tasks among which simulations are looked for. */
const ALERTS = 50;
const TASKS = 200;

function Detail({ detail }: { detail: ModelDetail }) {
  const { t } = useTranslation();
  const { operator } = useRole();
  const { model } = detail;
  const [asks, setAsks] = useState(false);
  const alerts = useSome<Alert>("alerts", { model: model.id, from_ms: 0, limit: ALERTS });
  const tasks = useSome<Task>("tasks", { from_ms: 0, limit: TASKS });
  const runs = (tasks.data?.items ?? []).filter(({ action }) => action.action === "simulate" && action.simulation === model.simulation?.name);
  return (
    <div className="page">
      <Head
        to="/models"
        back={t("menu.models")}
        title={<><Level level={model.level} /> <Plain text={model.title} most={160} /></>}
        side={
          operator && model.simulation && (
            <Button size="xs" onClick={() => setAsks(true)}>
              {t("model.simulate")}
            </Button>
          )
        }
      >
        <p className="dim">
          {[...model.attack, ...model.tactics.map((tactic) => t(`tactic.${tactic}`, { defaultValue: tactic }))].join(" · ")}
        </p>
      </Head>
      <div className="two wide">
        <div className="column">
          <Card title={t("model.about")}>
            <p className="sentence">{model.description}</p>
            <Facts
              rows={[
                [t("models.sources"), model.sources.join(" ")],
                [t("models.last"), <Time key="last" ms={model.last_ms} />],
                [t("models.open"), model.open],
                [t("model.fires"), t("model.hosts", { count: model.fires })],
                [t("model.off"), t("model.hosts", { count: model.off })],
                [
                  t("model.blind"),
                  <div key="blind">
                    {t("model.hosts", { count: model.blind })}
                    {detail.blind.map(({ reason, hosts }) => (
                      <div key={reason} className="dim">
                        {hosts} · <Plain text={reason} most={300} />
                      </div>
                    ))}
                  </div>,
                ],
                [t("model.harmless"), detail.false_positives.join("; ")],
                [
                  t("model.references"),
                  detail.references.length
                    ? detail.references.map((address) => (
                        <div key={address}>
                          <a href={address} target="_blank" rel="noreferrer noopener">
                            {address}
                          </a>
                        </div>
                      ))
                    : null,
                ],
              ]}
            />
          </Card>
          <Card title={t("model.rule")}>
            <pre className="result rule" tabIndex={0} aria-label={t("model.rule")}>
              {detail.text}
            </pre>
          </Card>
        </div>
        <div className="column">
          <Switches model={model} />
          {detail.advice && (
            <Card title={t("alert.advice")}>
              <p className="text">{detail.advice}</p>
            </Card>
          )}
          {model.simulation && (
            <Card title={t("model.proof")}>
              <p className="text">
                <span className="mono">{model.simulation.name}</span> {t("model.doesWhat", { what: model.simulation.what })}
              </p>
              <ul className="list">
                {runs.slice(0, 20).map((task) => (
                  <Run key={task.id} task={task} alerts={alerts.data?.items ?? []} />
                ))}
              </ul>
              {runs.length === 0 && <p className="hint dim">{t(operator ? "model.notRun" : "model.notRunAsk")}</p>}
            </Card>
          )}
          <Card title={t("menu.alerts")} side={<Link to={`/alerts?state=any&model=${encodeURIComponent(model.id)}`}>{t("overview.all")}</Link>}>
            {alerts.isPending ? (
              <Waiting />
            ) : alerts.data?.items.length ? (
              <ul className="list">
                {alerts.data.items.slice(0, 20).map((alert) => (
                  <Entry key={alert.id} to={`/alerts/${alert.id}`} mark={<AlertState alert={alert} />} what={<Plain text={alert.host} most={80} />}
                    under={
                      <>
                        <Plain text={alert.cause} most={120} />
                        {alert.simulated && ` · ${t("alert.simulated")}`}
                      </>
                    }>
                    <span className="number">{alert.count}</span>
                    <Time ms={alert.last_ms} />
                  </Entry>
                ))}
              </ul>
            ) : alerts.error ? (
              <Failure error={alerts.error} retry={() => void alerts.refetch()} />
            ) : (
              <Empty title={t("model.never")} hint={t("model.neverHint")} />
            )}
          </Card>
        </div>
      </div>
      {operator && model.simulation && <Simulate opened={asks} simulation={model.simulation} close={() => setAsks(false)} />}
    </div>
  );
}

/** Where the model is switched on and off: the policies, by what each of them says. */
function Switches({ model }: { model: ModelDetail["model"] }) {
  const { t } = useTranslation();
  const { admin } = useRole();
  const policies = usePolicies();
  const list = policies.data ?? [];
  return (
    <Card title={t("model.switches")} side={<Link to="/policies">{t("menu.policies")}</Link>}>
      {list.length === 0 ? (
        <p className="dim padded">{t("model.noPolicies")}</p>
      ) : (
        <ul className="list">
          {list.map((policy) => (
            <li key={policy.id}>
              <Link to={admin ? `/policies/${policy.id}/edit?part=models&model=${encodeURIComponent(model.title)}` : `/policies/${policy.id}`}>
                <span className="what">
                  <Plain text={policy.name} most={80} />
                  <small>
                    <Plain text={policy.groups.join(", ")} most={120} />
                  </small>
                </span>
                {t(admin ? "policies.edit" : "overview.all")}
              </Link>
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}

/** A simulation that was ordered, and the alert that came of it. */
function Run({ task, alerts }: { task: Task; alerts: Alert[] }) {
  const { t } = useTranslation();
  const begun = task.delivered_ms ?? task.filed_ms;
  const alert = task.stage === "verified" ? alerts.find((one) => one.host_id === task.host_id && one.simulated && one.last_ms >= begun - 60_000) : undefined;
  return (
    <li className="run">
      <Link to={`/tasks/${task.id}`}>
        <Stage task={task} />
        <span className="what">
          <Plain text={task.host} most={80} />
          <small>
            <Plain text={task.observed || task.reason} most={160} />
          </small>
        </span>
        <Time ms={task.filed_ms} />
      </Link>
      {alert && (
        <Link to={`/alerts/${alert.id}`} className="came">
          {t("model.came")}
        </Link>
      )}
    </li>
  );
}
