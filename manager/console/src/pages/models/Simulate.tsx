// Has a host run a simulation: which host, and why.
import { Modal, Textarea } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import type { Model } from "../../api/types";
import { Form } from "../../parts/Form";
import { HostField, type Place } from "../../parts/HostField";
import { useFile } from "../../parts/useFile";

interface Props {
  opened: boolean;
  simulation: NonNullable<Model["simulation"]>;
  close: () => void;
}

export function Simulate({ opened, simulation, close }: Props) {
  const { t } = useTranslation();
  return (
    <Modal opened={opened} onClose={close} title={t("model.simulate")}>
      {opened && <Wanted simulation={simulation} close={close} />}
    </Modal>
  );
}

function Wanted({ simulation, close }: Omit<Props, "opened">) {
  const { t } = useTranslation();
  const file = useFile();
  const [host, setHost] = useState<Place>(null);
  const [why, setWhy] = useState("");
  const [busy, setBusy] = useState(false);
  const send = async () => {
    if (!host) return;
    setBusy(true);
    const task = await file(host.id, { action: "simulate", simulation: simulation.name }, why.trim());
    setBusy(false);
    if (task) close();
  };
  return (
    <Form act={send} busy={busy} disabled={!host || why.trim() === ""} why="" label={t("model.simulateSend")} close={close}>
      <div className="effect">
        <p>{t("model.simulateEffect", { name: simulation.name, what: simulation.what })}</p>
      </div>
      <HostField host={host} set={setHost} />
      <Textarea label={t("order.reason")} description={t("order.reasonHint")} value={why} required maxLength={500} autosize minRows={2}
        onChange={(event) => setWhy(event.currentTarget.value)} />
    </Form>
  );
}
