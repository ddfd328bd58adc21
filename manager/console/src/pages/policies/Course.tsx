// How the next roll-outs of a policy go: stages, how long each must hold, and what follows when one stops.
import { Button, Modal, NumberInput, Switch, TextInput } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { patch } from "../../api/client";
import { queries } from "../../api/queries";
import type { Policy } from "../../api/types";
import { Card, Facts } from "../../parts/Facts";
import { useRole } from "../../shell/session";
import { Form, useSend } from "../../parts/Form";

export function Course({ policy }: { policy: Policy }) {
  const { t } = useTranslation();
  const { admin } = useRole();
  const [changing, setChanging] = useState(false);
  return (
    <Card
      title={t("policies.course")}
      side={
        admin && (
          <Button size="compact-xs" variant="subtle" onClick={() => setChanging(true)}>
            {t("policies.change")}
          </Button>
        )
      }
    >
      <Facts
        rows={[
          [t("policies.stages"), policy.stages.map((stage) => `${stage} %`).join(" → ")],
          [t("policies.soak"), t("policies.minutes", { count: policy.soak_s / 60 })],
          [t("policies.rollBack"), t(policy.roll_back ? "yes" : "no")],
        ]}
      />
      <Modal opened={changing} onClose={() => setChanging(false)} title={t("policies.course")}>
        {changing && <Change policy={policy} close={() => setChanging(false)} />}
      </Modal>
    </Card>
  );
}

function Change({ policy, close }: { policy: Policy; close: () => void }) {
  const { t } = useTranslation();
  const { send, busy, why } = useSend("policies");
  const [stages, setStages] = useState(policy.stages.join(", "));
  const [soak, setSoak] = useState<number | string>(policy.soak_s / 60);
  const [back, setBack] = useState(policy.roll_back);
  const act = async () => {
    const list = stages.split(/[\s,]+/).filter(Boolean).map(Number);
    if (!(await send(() => patch(`/api/v1/policies/${policy.id}`, { stages: list, soak_s: Math.round(Number(soak) * 60), roll_back: back })))) return;
    await queries.invalidateQueries({ queryKey: ["policy", policy.id] });
    close();
  };
  return (
    <Form act={act} busy={busy} why={why} label={t("policies.change")} close={close}>
      <TextInput label={t("policies.stages")} description={t("policies.stagesHint")} value={stages} required pattern="[\d,\s]+" data-autofocus
        onChange={(event) => setStages(event.currentTarget.value)} />
      <NumberInput label={t("policies.soakMinutes")} description={t("policies.soakHint")} value={soak} min={0} max={43_200} required onChange={setSoak} />
      <Switch label={t("policies.rollBack")} description={t("policies.rollBackHint")} checked={back} onChange={(event) => setBack(event.currentTarget.checked)} />
    </Form>
  );
}
