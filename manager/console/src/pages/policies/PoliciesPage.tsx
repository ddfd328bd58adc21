// All policies: whose hosts each rules, its newest version and how far that has got; and how another one
// is made.
import { Button, Modal, TextInput } from "@mantine/core";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link, useNavigate } from "react-router";
import { post } from "../../api/client";
import { usePolicies } from "../../api/queries";
import type { Policy } from "../../api/types";
import { useParam } from "../../parts/address";
import { Choose, Find } from "../../parts/Filter";
import { Icon } from "../../parts/Icon";
import { Empty } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { rowsOf } from "../../parts/rowsOf";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { useRole } from "../../shell/session";
import { Form, useSend } from "../../parts/Form";
import { ROLLOUTS, RolloutState } from "./parts";

export default function PoliciesPage() {
  const { t, i18n } = useTranslation();
  const { admin } = useRole();
  const [text] = useParam("text");
  const [state] = useParam("state");
  const [making, setMaking] = useState(false);
  const policies = usePolicies();
  const wanted = text.toLowerCase();
  const fits = (policy: Policy) =>
    (!state || policy.newest?.state === state) && `${policy.name} ${policy.groups.join(" ")}`.toLowerCase().includes(wanted);
  const columns: Column<Policy>[] = useMemo(
    () => [
      { key: "name", label: t("policies.name"), width: "minmax(120px, 1.5fr)", phone: true, cell: (p) => <Plain text={p.name} most={80} />, text: (p) => p.name },
      {
        key: "groups", label: t("policies.groups"), width: "minmax(120px, 1.5fr)", phone: true, text: (p) => p.groups.join(" "),
        cell: (p) => (p.groups.length ? <Plain text={p.groups.join(", ")} most={160} /> : <span className="dim">{t("policies.noGroups")}</span>),
      },
      { key: "version", label: t("policies.version"), width: "86px", phone: true, cell: (p) => <span className="number">{p.newest?.version ?? ""}</span>, text: (p) => String(p.newest?.version ?? "") },
      { key: "state", label: t("policies.rollout"), width: "116px", cell: (p) => (p.newest ? <RolloutState state={p.newest.state} /> : null), text: (p) => p.newest?.state ?? "" },
      { key: "stable", label: t("policies.stable"), width: "96px", cell: (p) => <span className="number">{p.stable || ""}</span>, text: (p) => String(p.stable || "") },
      { key: "reason", label: t("order.reason"), width: "minmax(120px, 2fr)", cell: (p) => <Plain text={p.newest?.reason ?? ""} most={160} />, text: (p) => p.newest?.reason ?? "" },
      { key: "author", label: t("tasks.by"), width: "110px", cell: (p) => <Plain text={p.newest?.author ?? ""} most={40} />, text: (p) => p.newest?.author ?? "" },
      { key: "changed", label: t("users.changed"), width: "106px", cell: (p) => <Time ms={p.newest?.changed_ms ?? p.created_ms} />, text: (p) => exact(p.newest?.changed_ms ?? p.created_ms, i18n.language) },
    ],
    [t, i18n.language],
  );
  const make = admin && (
    <Button size="xs" leftSection={<Icon name="plus" size={14} />} onClick={() => setMaking(true)}>
      {t("policies.make")}
    </Button>
  );
  return (
    <div className="page full">
      <header className="head">
        <h1>{t("menu.policies")}</h1>
        {make}
      </header>
      <Table name="policies" label={t("menu.policies")} rows={rowsOf(policies, fits)} columns={columns} open={(policy) => `/policies/${policy.id}`}
        tools={
          <>
            <Find label={t("policies.find")} />
            <Choose name="state" label={t("policies.rollout")} any={t("rolloutState.any")}
              options={ROLLOUTS.map((value) => ({ value, label: t(`rolloutState.${value}`) }))} />
          </>
        }
        empty={
          text || state ? (
            <Empty title={t("policies.noMatch")} hint={t("hosts.noMatchHint")}>
              <Link to="/policies">{t("alerts.reset")}</Link>
            </Empty>
          ) : (
            <Empty title={t("policies.none")} hint={t(admin ? "policies.noneHint" : "policies.noneAsk")}>
              {make}
            </Empty>
          )
        } />
      <Modal opened={making} onClose={() => setMaking(false)} title={t("policies.make")}>
        {making && <New close={() => setMaking(false)} />}
      </Modal>
    </div>
  );
}

function New({ close }: { close: () => void }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { send, busy, why } = useSend("policies");
  const [name, setName] = useState("");
  const act = async () => {
    const made = await send(() => post<Policy>("/api/v1/policies", { name: name.trim() }));
    if (made) await navigate(`/policies/${made.id}`);
  };
  return (
    <Form act={act} busy={busy} why={why} label={t("policies.make")} close={close}>
      <p className="effect">{t("policies.makeEffect")}</p>
      <TextInput label={t("policies.name")} value={name} required maxLength={100} data-autofocus autoComplete="off" onChange={(event) => setName(event.currentTarget.value)} />
    </Form>
  );
}
