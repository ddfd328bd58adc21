// One host, found by a part of its name; those that are away cannot be chosen.
import { Select } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useSome } from "../api/queries";
import type { Host } from "../api/types";
import { visible } from "./visible";

export type Place = { id: string; name: string } | null;

export function HostField({ host, set }: { host: Place; set: (host: Place) => void }) {
  const { t } = useTranslation();
  const [typed, setTyped] = useState("");
  const [text] = useDebouncedValue(typed, 250);
  // What stands in the field once a host is chosen is its name, and no search for more.
  const hosts = useSome<Host>("hosts", { text: host && text === visible(host.name) ? "" : text, limit: 50 });
  const known = (hosts.data?.items ?? []).filter((one) => !one.revoked_ms);
  const data = known.map((one) => ({ value: one.id, label: visible(one.name), disabled: !one.connected }));
  if (host && !data.some((one) => one.value === host.id)) data.unshift({ value: host.id, label: visible(host.name), disabled: false });
  // One that is chosen already may be asked for again though the list has no such line now.
  const choose = (id: string | null) => set(known.find((one) => one.id === id) ?? (host?.id === id ? host : null));
  return (
    <Select label={t("alerts.host")} placeholder={t("model.chooseHost")} data={data} value={host?.id ?? null} searchable required
      searchValue={typed} onSearchChange={setTyped} filter={({ options }) => options} nothingFoundMessage={t("hosts.noMatch")}
      onChange={choose} />
  );
}
