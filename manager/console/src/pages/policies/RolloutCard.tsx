// How the newest version comes to its hosts: stage by stage, who runs it, who refused it, why it stopped;
// and what it changes for each host.
import { Button, Modal, Progress } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { post } from "../../api/client";
import { queries, useRollout } from "../../api/queries";
import type { Policy, RolloutHost } from "../../api/types";
import { Card, Facts } from "../../parts/Facts";
import { Empty, Failure, useReason, Waiting } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { Why } from "../../parts/Why";
import { visible } from "../../parts/visible";
import { useRole } from "../../shell/session";
import { Diff, RolloutState } from "./parts";

/** Hosts that are listed at first. */
const SOME = 50;

type Steer = "pause" | "resume" | "stop";

export function RolloutCard({ policy }: { policy: Policy }) {
  const { t } = useTranslation();
  const { admin } = useRole();
  const explain = useReason();
  const [steer, setSteer] = useState<Steer | null>(null);
  const [all, setAll] = useState(false);
  const [looks, setLooks] = useState<RolloutHost | null>(null);
  const rollout = useRollout(policy.id, true);
  if (rollout.isPending) return <Waiting />;
  if (!rollout.data) return <Failure error={rollout.error} retry={() => void rollout.refetch()} />;
  const { rollout: version, members, ...counts } = rollout.data;
  const under = version.state === "rolling" || version.state === "paused";
  const act = async (reason: string) => {
    try {
      await post(`/api/v1/policies/${policy.id}/rollout`, { action: steer, reason });
      setSteer(null);
      await queries.invalidateQueries({ queryKey: ["policy", policy.id] });
    } catch (error) {
      notifications.show({ color: "red", message: explain(error) });
    }
  };
  const steers: Steer[] = version.state === "rolling" ? ["pause", "stop"] : version.state === "paused" ? ["resume", "stop"] : [];
  const done = version.state === "done" ? version.stages.length : version.stage;
  return (
    <Card title={t("policies.rollout")} side={<RolloutState state={version.state} />}>
      <ol className="stages" aria-label={t("policies.stages")}>
        {version.stages.map((percent, index) => (
          <li key={percent} className={index < done ? "done" : index === version.stage && under ? "now" : ""} aria-current={index === version.stage && under ? "step" : undefined}>
            {`${percent} %`}
          </li>
        ))}
      </ol>
      <div className="padded">
        <Progress value={counts.hosts ? (counts.running / counts.hosts) * 100 : 0} aria-label={t("policies.running", { count: counts.running, all: counts.hosts })} />
        <p className="under">{t("policies.running", { count: counts.running, all: counts.hosts })}</p>
        {version.state === "rolling" && (
          <p className="dim under">
            {counts.hosts === 0 ? t("policies.noHosts") : version.settled_ms ? t("policies.soaking", { minutes: Math.ceil(version.soak_s / 60) }) : t("policies.waitsFor")}
            {version.settled_ms ? <> <Time ms={version.settled_ms} /></> : null}
          </p>
        )}
        {version.why && (
          <p className="wrong">
            <Plain text={version.why} most={500} />
          </p>
        )}
      </div>
      {admin && steers.length > 0 && (
        <div className="actions padded">
          {steers.map((one) => (
            <Button key={one} size="compact-sm" color={one === "stop" ? "red" : "steel"} variant="light" onClick={() => setSteer(one)}>
              {t(`policies.steer.${one}`)}
            </Button>
          ))}
        </div>
      )}
      <Facts
        rows={[
          [t("policies.counts.wanted"), counts.wanted],
          [t("policies.counts.refused"), counts.refused || null],
          [t("policies.counts.away"), counts.away || null],
          [t("policies.counts.closed"), counts.closed || null],
        ]}
      />
      {members.length === 0 ? (
        <Empty title={t("policies.noHosts")} hint={t("policies.noGroupsHint")} />
      ) : (
        <ul className="list">
          {members.slice(0, all ? members.length : SOME).map((host) => (
            <Host key={host.id} host={host} policy={policy} version={version.version} look={() => setLooks(host)} />
          ))}
        </ul>
      )}
      {members.length > SOME && !all && (
        <p className="hint">
          <Button size="compact-xs" variant="subtle" onClick={() => setAll(true)}>
            {t("policies.allHosts", { count: members.length })}
          </Button>
        </p>
      )}
      <Why opened={steer !== null} title={t(`policies.steer.${steer ?? "stop"}`)} effect={t(`policies.steerEffect.${steer === "stop" && policy.roll_back ? "back" : (steer ?? "stop")}`)}
        send={t(`policies.steer.${steer ?? "stop"}`)} close={() => setSteer(null)} done={act} />
      <Modal opened={looks !== null} onClose={() => setLooks(null)} title={t("policies.changesFor", { host: visible(looks?.name ?? "") })} size="lg">
        {looks && <Diff id={policy.id} from={ownOf(looks, policy)} to={version.version} />}
      </Modal>
    </Card>
  );
}

/** The version of this policy that a host runs; 0 where it runs another one, or none. */
const ownOf = (host: RolloutHost, policy: Policy) => (host.policy.running_id === policy.id ? host.policy.running : 0);

function Host({ host, policy, version, look }: { host: RolloutHost; policy: Policy; version: number; look: () => void }) {
  const { t } = useTranslation();
  const own = ownOf(host, policy);
  const state = host.policy.refused === version ? "refused" : !host.policy.accepts ? "closed" : own === version ? "runs" : host.policy.wanted === version ? "coming" : "later";
  return (
    <li className="order">
      <span className={`mark member-${state}`}>{t(`policies.member.${state}`)}</span>
      <Link to={`/hosts/${host.id}`} className="what">
        <Plain text={host.name} most={80} />
        <small>
          {t(host.connected ? "host.connected" : "host.away")}
          {host.red_ms ? ` · ${t("health.red")}` : ""}
          {" · "}
          {own ? t("policies.runs", { version: own }) : t(host.policy.running_id ? "policies.runsOther" : "policies.runsNone")}
          {host.policy.why && (
            <>
              {" · "}
              <Plain text={host.policy.why} most={300} />
            </>
          )}
        </small>
      </Link>
      {own !== version && (
        <Button size="compact-xs" variant="subtle" onClick={look}>
          {t("policies.changes")}
        </Button>
      )}
    </li>
  );
}
