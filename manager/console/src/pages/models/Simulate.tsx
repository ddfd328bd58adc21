// Has a host run a simulation: which host, and why.
import { Button, Group, Modal, Select, Textarea } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useSome } from "../../api/queries";
import type { Host, Model } from "../../api/types";
import { useFile } from "../../parts/useFile";
import { visible } from "../../parts/visible";

interface Props {
  opened: boolean;
  simulation: NonNullable<Model["simulation"]>;
  close: () => void;
}

export function Simulate({ opened, simulation, close }: Props) {
  const { t } = useTranslation();
  return (
    <Modal opened={opened} onClose={close} title={t("model.simulate")}>
      {opened && <Form simulation={simulation} close={close} />}
    </Modal>
  );
}

function Form({ simulation, close }: Omit<Props, "opened">) {
  const { t } = useTranslation();
  const file = useFile();
  const [typed, setTyped] = useState("");
  const [text] = useDebouncedValue(typed, 250);
  const [host, setHost] = useState<string | null>(null);
  const [picked, setPicked] = useState("");
  const [why, setWhy] = useState("");
  const [busy, setBusy] = useState(false);
  // What stands in the field once a host is chosen is its name, and no search for more.
  const hosts = useSome<Host>("hosts", { text: text === picked ? "" : text, limit: 50 });
  const known = (hosts.data?.items ?? []).filter((one) => !one.revoked_ms);
  const data = known.map((one) => ({ value: one.id, label: visible(one.name), disabled: !one.connected }));
  if (host && !data.some((one) => one.value === host)) data.unshift({ value: host, label: picked, disabled: false });
  const send = async () => {
    if (!host) return;
    setBusy(true);
    const task = await file(host, { action: "simulate", simulation: simulation.name }, why.trim());
    setBusy(false);
    if (task) close();
  };
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <div className="effect">
        <p>{t("model.simulateEffect", { name: simulation.name, what: simulation.what })}</p>
      </div>
      <Select label={t("alerts.host")} placeholder={t("model.chooseHost")} data={data} value={host} searchable required
        searchValue={typed} onSearchChange={setTyped} filter={({ options }) => options} nothingFoundMessage={t("hosts.noMatch")}
        onChange={(value, option) => {
          setHost(value);
          setPicked(option?.label ?? "");
        }} />
      <Textarea label={t("order.reason")} description={t("order.reasonHint")} value={why} required maxLength={500} autosize minRows={2}
        onChange={(event) => setWhy(event.currentTarget.value)} />
      <Group justify="flex-end">
        <Button variant="default" onClick={close}>
          {t("cancel")}
        </Button>
        <Button type="submit" loading={busy} disabled={!host || why.trim() === ""}>
          {t("model.simulateSend")}
        </Button>
      </Group>
    </form>
  );
}
