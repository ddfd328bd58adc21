// The state of a quarantined file, and what can be done with some of them.
import { Button } from "@mantine/core";
import { useTranslation } from "react-i18next";
import type { Item } from "../../api/types";
import type { Order } from "../../parts/OrderDialog";
import { visible } from "../../parts/visible";

export function ItemState({ state }: { state: string }) {
  const { t } = useTranslation();
  return <span className={`mark item-${state}`}>{t(`itemState.${state}`, { defaultValue: visible(state) })}</span>;
}

interface Props {
  items: Item[];
  size: "compact-sm" | "xs";
  ask: (order: Order) => void;
}

/** Only what still lies in quarantine can be taken out of it. */
export function ItemActions({ items, size, ask }: Props) {
  const { t } = useTranslation();
  const held = items.filter((item) => item.state === "held");
  const targets = held.map((item) => ({ host_id: item.host_id, host: item.host, item: { id: item.item, path: item.path } }));
  const button = (kind: "restore" | "restore_allow" | "download" | "delete") => (
    <Button key={kind} size={size} variant={kind === "delete" ? "light" : "default"} {...(kind === "delete" ? { color: "red" } : {})}
      disabled={held.length === 0} onClick={() => ask({ wish: { kind }, targets })}>
      {t(`order.${kind}.do`)}
    </Button>
  );
  return <>{(["restore", "restore_allow", "download", "delete"] as const).map(button)}</>;
}
