// A dangerous thing is asked for here: what will happen, to how many hosts, and why it is done.
//
// INVARIANT: nothing is filed without a reason, and each host gets its order once.
import { Button, Group, Modal, NumberInput, Select, Textarea, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { postOnce, Problem } from "../api/client";
import { queries } from "../api/queries";
import type { Action, ProcessKey, Task } from "../api/types";
import { useReason } from "./Notice";
import { Plain } from "./Plain";
import { visible } from "./visible";

export interface Target {
  host_id: string;
  host: string;
  alert?: string;
}

/** What is asked for. The words are `order.ACTION.*`. */
export type Wish =
  | { kind: "isolate" | "release" | "diagnostics" | "process_list" }
  | { kind: "collect"; path: string }
  | { kind: "kill"; process: ProcessKey; command: string };

export interface Order {
  wish: Wish;
  targets: Target[];
}

/** Bytes that a collected file may have, MiB. */
const LIMIT_MIB = 100;
const HOURS = ["", "1", "4", "24", "168"];
const NAMES = 8;

export function OrderDialog({ order, close }: { order: Order | null; close: () => void }) {
  const { t } = useTranslation();
  const kind = order?.wish.kind ?? "release";
  return (
    <Modal opened={order !== null} onClose={close} title={t(`order.${kind}.title`)} size="md">
      {order && <Form key={JSON.stringify(order)} order={order} close={close} />}
    </Modal>
  );
}

function Form({ order, close }: { order: Order; close: () => void }) {
  const { t } = useTranslation();
  const explain = useReason();
  const { wish, targets } = order;
  const [why, setWhy] = useState("");
  const [hours, setHours] = useState("");
  const [path, setPath] = useState(wish.kind === "collect" ? wish.path : "");
  const [password, setPassword] = useState("infected");
  const [limit, setLimit] = useState<number | string>(LIMIT_MIB);
  const [busy, setBusy] = useState(false);
  const hosts = [...new Map(targets.map((target) => [target.host_id, target])).values()];

  const action = (): Action => {
    switch (wish.kind) {
      case "isolate":
        return { action: "isolate", duration_s: hours === "" ? null : Number(hours) * 3_600 };
      case "collect":
        return { action: "collect", path, password, limit: Number(limit) * 1_048_576 };
      case "kill":
        return { action: "kill", process: wish.process };
      case "release":
      case "diagnostics":
      case "process_list":
        return { action: wish.kind };
    }
  };

  const send = async () => {
    setBusy(true);
    const filed: Task[] = [];
    const failed: string[] = [];
    for (const target of hosts) {
      const body = { host: target.host_id, action: action(), reason: why.trim(), alert: target.alert ?? null };
      try {
        filed.push(await postOnce<Task>("/api/v1/tasks", body));
      } catch (error) {
        failed.push(`${visible(target.host)}: ${explain(error)}`);
        if (error instanceof Problem && error.status === 401) break;
      }
    }
    setBusy(false);
    const [first] = filed;
    if (first) {
      notifications.show({
        message: (
          <span>
            {t("order.filed", { count: filed.length })}{" "}
            <Link to={filed.length === 1 ? `/tasks/${first.id}` : "/tasks"}>{t("order.look")}</Link>
          </span>
        ),
      });
      void queries.invalidateQueries({ queryKey: ["alert"] });
      void queries.invalidateQueries({ queryKey: ["tasks"] });
    }
    if (failed.length) notifications.show({ color: "red", autoClose: false, title: t("order.refused"), message: failed.slice(0, NAMES).join("\n") });
    if (filed.length || failed.length === 0) close();
  };

  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
      className="stack"
    >
      <div className={wish.kind === "isolate" || wish.kind === "kill" ? "effect danger" : "effect"}>
        <p>{t(`order.${wish.kind}.effect`, { count: hosts.length })}</p>
        <Names hosts={hosts} />
        {wish.kind === "kill" && (
          <p>
            <Plain text={`${wish.command} (${wish.process.pid})`} mono most={200} />
          </p>
        )}
      </div>
      {wish.kind === "isolate" && (
        <Select label={t("order.isolate.for")} value={hours} onChange={(value) => setHours(value ?? "")} allowDeselect={false}
          data={HOURS.map((value) => ({ value, label: value ? t("order.isolate.hours", { count: Number(value) }) : t("order.isolate.open") }))} />
      )}
      {wish.kind === "collect" && (
        <>
          <TextInput label={t("order.collect.path")} value={path} required pattern="/.*" onChange={(event) => setPath(event.currentTarget.value)} />
          <Group grow>
            <TextInput label={t("order.collect.password")} value={password} required autoComplete="off"
              onChange={(event) => setPassword(event.currentTarget.value)} />
            <NumberInput label={t("order.collect.limit")} value={limit} min={1} max={1024} required onChange={setLimit} />
          </Group>
        </>
      )}
      <Textarea label={t("order.reason")} description={t("order.reasonHint")} value={why} required data-autofocus maxLength={500}
        autosize minRows={2} onChange={(event) => setWhy(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.form?.requestSubmit();
        }} />
      <Group justify="flex-end">
        <Button variant="default" onClick={close}>
          {t("cancel")}
        </Button>
        <Button type="submit" loading={busy} disabled={why.trim() === ""} color={wish.kind === "isolate" || wish.kind === "kill" ? "red" : "steel"}>
          {t(`order.${wish.kind}.send`, { count: hosts.length })}
        </Button>
      </Group>
    </form>
  );
}

function Names({ hosts }: { hosts: Target[] }): ReactNode {
  const { t } = useTranslation();
  return (
    <ul className="names">
      {hosts.slice(0, NAMES).map((host) => (
        <li key={host.host_id}>
          <Plain text={host.host} most={60} />
        </li>
      ))}
      {hosts.length > NAMES && <li>{t("order.more", { count: hosts.length - NAMES })}</li>}
    </ul>
  );
}
