// A dangerous thing is asked for here: what will happen, to how many hosts, and why it is done.
//
// INVARIANT: nothing is filed without a reason, and each host (or quarantined file) gets its order once.
import { Button, Group, Modal, NumberInput, Select, Textarea, TextInput } from "@mantine/core";
import { useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import type { Action, ProcessKey } from "../api/types";
import { useOrders } from "./orders";
import { Plain } from "./Plain";

export interface Target {
  host_id: string;
  host: string;
  alert?: string;
  /** A quarantined file there. */
  item?: { id: string; path: string };
}

/** What is asked for. The words are `order.ACTION.*`. */
export type Wish =
  | { kind: "isolate" | "release" | "diagnostics" | "process_list" }
  | { kind: "collect"; path: string }
  | { kind: "kill"; process: ProcessKey; command: string }
  | { kind: "restore" | "restore_allow" | "delete" | "download" };

const DANGEROUS = ["isolate", "kill", "restore", "restore_allow", "delete"];

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
  const { wish, targets } = order;
  const [why, setWhy] = useState("");
  const [hours, setHours] = useState("");
  const [path, setPath] = useState(wish.kind === "collect" ? wish.path : "");
  const [password, setPassword] = useState("infected");
  const [limit, setLimit] = useState<number | string>(LIMIT_MIB);
  const { busy, file } = useOrders();
  const danger = DANGEROUS.includes(wish.kind);
  const places = [...new Map(targets.map((target) => [`${target.host_id} ${target.item?.id ?? ""}`, target])).values()];
  const hosts = new Set(places.map((place) => place.host_id)).size;

  const span = hours === "" ? null : Number(hours) * 3_600;
  const action = (item: string): Action => {
    switch (wish.kind) {
      case "isolate":
        return { action: "isolate", duration_s: span };
      case "collect":
        return { action: "collect", path, password, limit: Number(limit) * 1_048_576 };
      case "kill":
        return { action: "kill", process: wish.process };
      case "restore":
        return { action: "restore", item, allow: false };
      case "restore_allow":
        return { action: "restore", item, allow: true, duration_s: span };
      case "delete":
        return { action: "delete", item };
      case "download":
        return { action: "download", item, password };
      case "release":
      case "diagnostics":
      case "process_list":
        return { action: wish.kind };
    }
  };

  const send = async () => {
    const orders = places.map((place) => ({ place, action: action(place.item?.id ?? "") }));
    if (await file(orders, why)) close();
  };

  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
      className="stack"
    >
      <div className={danger ? "effect danger" : "effect"}>
        <p>{t(`order.${wish.kind}.effect`, { count: places.length, hosts })}</p>
        <Names places={places} />
        {wish.kind === "kill" && (
          <p>
            <Plain text={`${wish.command} (${wish.process.pid})`} mono most={200} />
          </p>
        )}
      </div>
      {(wish.kind === "isolate" || wish.kind === "restore_allow") && (
        <Select label={t(`order.${wish.kind}.for`)} value={hours} onChange={(value) => setHours(value ?? "")} allowDeselect={false}
          data={HOURS.map((value) => ({ value, label: value ? t(`order.${wish.kind}.hours`, { count: Number(value) }) : t(`order.${wish.kind}.open`) }))} />
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
      {wish.kind === "download" && (
        <TextInput label={t("order.collect.password")} description={t("order.download.password")} value={password} required autoComplete="off"
          onChange={(event) => setPassword(event.currentTarget.value)} />
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
        <Button type="submit" loading={busy} disabled={why.trim() === ""} color={danger ? "red" : "steel"}>
          {t(`order.${wish.kind}.send`, { count: places.length })}
        </Button>
      </Group>
    </form>
  );
}

function Names({ places }: { places: Target[] }): ReactNode {
  const { t } = useTranslation();
  return (
    <ul className="names">
      {places.slice(0, NAMES).map((place) => (
        <li key={`${place.host_id} ${place.item?.id ?? ""}`}>
          <Plain text={place.host} most={60} />
          {place.item && (
            <>
              {" "}
              <Plain text={place.item.path} mono most={120} />
            </>
          )}
        </li>
      ))}
      {places.length > NAMES && <li>{t("order.more", { count: places.length - NAMES })}</li>}
    </ul>
  );
}
