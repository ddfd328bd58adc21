// One policy: its document, its versions and what differs between them, whose hosts it rules, and how
// its roll-out goes.
import { Button, Modal, Select, TagsInput, Textarea } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useParams } from "react-router";
import { post, put } from "../../api/client";
import { queries, usePolicy, useVersion, useVersions } from "../../api/queries";
import type { Policy, PolicyVersion } from "../../api/types";
import { useParam } from "../../parts/address";
import { Card, Facts } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { useRole } from "../../shell/session";
import { Form, useSend } from "../../parts/Form";
import { Course } from "./Course";
import { Diff, RolloutState, Text, Warnings } from "./parts";
import { RolloutCard } from "./RolloutCard";

export default function PolicyPage() {
  const { id = "" } = useParams();
  const policy = usePolicy(id);
  if (policy.isPending) return <Waiting />;
  if (!policy.data) return <Failure error={policy.error} retry={() => void policy.refetch()} />;
  return <Detail policy={policy.data} />;
}

function Detail({ policy }: { policy: Policy }) {
  const { t } = useTranslation();
  const { admin } = useRole();
  const { newest } = policy;
  const [asked] = useParam("version");
  const number = Number(asked) || newest?.version;
  const version = useVersion(policy.id, number);
  return (
    <div className="page">
      <Head
        to="/policies"
        back={t("menu.policies")}
        title={<><Plain text={policy.name} most={100} /> {newest && <RolloutState state={newest.state} />}</>}
        side={
          admin && (
            <Button size="xs" component={Link} to={`/policies/${policy.id}/edit`}>
              {t(newest ? "policies.edit" : "policies.write")}
            </Button>
          )
        }
      >
        <p className="dim">
          {newest ? t("policies.versionOf", { version: newest.version }) : t("policies.empty")}
          {" · "}
          {policy.groups.length ? <Plain text={policy.groups.join(", ")} most={200} /> : t("policies.noGroups")}
        </p>
      </Head>
      <div className="two wide">
        <div className="column">
          <Card title={t("policies.document")} side={number ? <span className="dim">{t("policies.versionOf", { version: number })}</span> : null}>
            {!number ? (
              <Empty title={t("policies.empty")} hint={t(admin ? "policies.emptyHint" : "policies.noneAsk")} />
            ) : version.isPending ? (
              <Waiting />
            ) : !version.data ? (
              <Failure error={version.error} retry={() => void version.refetch()} />
            ) : (
              <>
                <Warnings list={version.data.warnings} />
                {version.data.document ? (
                  <Text text={version.data.document} label={t("policies.document")} />
                ) : (
                  <Empty title={t("policies.nothing")} hint={t("policies.nothingHint")} />
                )}
              </>
            )}
          </Card>
          {newest && <Versions policy={policy} newest={newest} shown={number} />}
        </div>
        <div className="column">
          {newest && <RolloutCard policy={policy} />}
          <Groups policy={policy} />
          <Course policy={policy} />
        </div>
      </div>
    </div>
  );
}

function Versions({ policy, newest, shown }: { policy: Policy; newest: PolicyVersion; shown: number | undefined }) {
  const { t } = useTranslation();
  const { admin } = useRole();
  const versions = useVersions(policy.id);
  const [from, setFrom] = useParam("from", String(newest.version - 1));
  const [to, setTo] = useParam("to", String(newest.version));
  const [back, setBack] = useState<PolicyVersion | null>(null);
  const list = versions.data?.items ?? [];
  const choices = (empty: boolean) => [
    ...list.map((one) => ({ value: String(one.version), label: String(one.version) })),
    ...(empty ? [{ value: "0", label: t("policies.nothing") }] : []),
  ];
  return (
    <>
      <Card title={t("policies.versions")}>
        <ul className="list">
          {list.map((one) => (
            <li key={one.version} className="run">
              <Link to={`?version=${one.version}`} aria-current={one.version === shown ? "true" : undefined}>
                <span className="number">{one.version}</span>
                <RolloutState state={one.state} />
                <span className="what">
                  <Plain text={one.reason} most={200} />
                  <small>
                    <Plain text={one.author} most={60} />
                    {one.why && (
                      <>
                        {" · "}
                        <Plain text={one.why} most={300} />
                      </>
                    )}
                  </small>
                </span>
                <Time ms={one.created_ms} />
              </Link>
              {admin && one.version !== newest.version && (
                <Button size="compact-xs" variant="subtle" mr={8} onClick={() => setBack(one)} aria-label={t("policies.backTo", { version: one.version })}>
                  {t("policies.back")}
                </Button>
              )}
            </li>
          ))}
        </ul>
        {versions.data?.next && <p className="dim hint">{t("policies.moreVersions", { count: list.length })}</p>}
      </Card>
      <Card
        title={t("policies.differs")}
        side={
          <span className="actions">
            <Select size="xs" w={92} aria-label={t("policies.from")} value={from} data={choices(true)} allowDeselect={false} onChange={(value) => setFrom(value ?? from)} />
            {"→"}
            <Select size="xs" w={92} aria-label={t("policies.to")} value={to} data={choices(false)} allowDeselect={false} onChange={(value) => setTo(value ?? to)} />
          </span>
        }
      >
        <Diff id={policy.id} from={Number(from) || 0} to={Number(to) || newest.version} />
      </Card>
      <Modal opened={back !== null} onClose={() => setBack(null)} title={t("policies.backTo", { version: back?.version ?? 0 })} size="lg">
        {back && <Back policy={policy} version={back} newest={newest.version} close={() => setBack(null)} />}
      </Modal>
    </>
  );
}

function Back({ policy, version, newest, close }: { policy: Policy; version: PolicyVersion; newest: number; close: () => void }) {
  const { t } = useTranslation();
  const { send, busy, why } = useSend("policies");
  const [reason, setReason] = useState("");
  const [speed, setSpeed] = useState("staged");
  const act = async () => {
    const done = await send(() =>
      post(`/api/v1/policies/${policy.id}/versions`, { copy_of: version.version, at_once: speed === "once", reason: reason.trim() }));
    if (!done) return;
    await queries.invalidateQueries({ queryKey: ["policy", policy.id] });
    close();
  };
  return (
    <Form act={act} busy={busy} why={why} label={t("policies.back")} close={close}>
      <p className="effect">{t("policies.backEffect", { version: version.version, next: newest + 1 })}</p>
      <Diff id={policy.id} from={newest} to={version.version} />
      <Speed value={speed} set={setSpeed} policy={policy} />
      <Textarea label={t("order.reason")} description={t("policies.reasonHint")} value={reason} required data-autofocus maxLength={500} autosize minRows={2}
        onChange={(event) => setReason(event.currentTarget.value)} />
    </Form>
  );
}

/** Stage by stage, or everywhere now. */
export function Speed({ value, set, policy }: { value: string; set: (value: string) => void; policy: Policy }) {
  const { t } = useTranslation();
  return (
    <Select label={t("policies.speed")} value={value} allowDeselect={false} onChange={(next) => set(next ?? value)}
      description={t(value === "once" ? "policies.onceHint" : "policies.stagedHint")}
      data={[
        { value: "staged", label: t("policies.staged", { stages: policy.stages.map((stage) => `${stage} %`).join(" → ") }) },
        { value: "once", label: t("policies.once") },
      ]} />
  );
}

function Groups({ policy }: { policy: Policy }) {
  const { t } = useTranslation();
  const { admin } = useRole();
  const [changing, setChanging] = useState(false);
  return (
    <Card
      title={t("policies.groups")}
      side={
        admin && (
          <Button size="compact-xs" variant="subtle" onClick={() => setChanging(true)}>
            {t("policies.assign")}
          </Button>
        )
      }
    >
      {policy.groups.length ? (
        <ul className="names padded">
          {policy.groups.map((group) => (
            <li key={group}>
              <Link to={`/hosts?text=${encodeURIComponent(group)}`}>
                <Plain text={group} most={60} />
              </Link>
            </li>
          ))}
        </ul>
      ) : (
        <Empty title={t("policies.noGroups")} hint={t("policies.noGroupsHint")} />
      )}
      <Facts rows={[[t("policies.made"), <Time key="m" ms={policy.created_ms} whole />]]} />
      <Modal opened={changing} onClose={() => setChanging(false)} title={t("policies.assign")}>
        {changing && <Assign policy={policy} close={() => setChanging(false)} />}
      </Modal>
    </Card>
  );
}

function Assign({ policy, close }: { policy: Policy; close: () => void }) {
  const { t } = useTranslation();
  const { send, busy, why } = useSend("policies");
  const [groups, setGroups] = useState(policy.groups);
  const [reason, setReason] = useState("");
  const act = async () => {
    if (!(await send(() => put(`/api/v1/policies/${policy.id}/groups`, { groups, reason: reason.trim() })))) return;
    await queries.invalidateQueries({ queryKey: ["policy", policy.id] });
    close();
  };
  return (
    <Form act={act} busy={busy} why={why} label={t("policies.assign")} close={close}>
      <p className="effect">{t("policies.assignEffect")}</p>
      <TagsInput label={t("policies.groups")} description={t("policies.groupsHint")} value={groups} onChange={setGroups} maxTags={200} data-autofocus />
      <Textarea label={t("order.reason")} description={t("policies.reasonHint")} value={reason} required maxLength={500} autosize minRows={2}
        onChange={(event) => setReason(event.currentTarget.value)} />
    </Form>
  );
}
