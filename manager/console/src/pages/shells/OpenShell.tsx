// Opens a shell: where, which kind, and why. Whoever may not open one never sees this.
import { Modal, SegmentedControl, Textarea } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useNavigate } from "react-router";
import { post } from "../../api/client";
import type { Task } from "../../api/types";
import { Form, useSend } from "../../parts/Form";
import { HostField } from "../../parts/HostField";
import { Plain } from "../../parts/Plain";

interface Props {
  opened: boolean;
  close: () => void;
  /** Where, when that is known. */
  host?: { id: string; name: string };
  alert?: string;
}

export function OpenShell({ opened, close, ...place }: Props) {
  const { t } = useTranslation();
  return (
    <Modal opened={opened} onClose={close} title={t("shells.open")}>
      {opened && <Wanted close={close} {...place} />}
    </Modal>
  );
}

function Wanted({ close, host: known, alert }: Omit<Props, "opened">) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { send, busy, why } = useSend("tasks");
  const [host, setHost] = useState(known ?? null);
  const [mode, setMode] = useState("restricted");
  const [reason, setReason] = useState("");
  const act = async () => {
    if (!host) return;
    const body = { host: host.id, reason: reason.trim(), restricted: mode === "restricted", alert: alert ?? null };
    const task = await send(() => post<Task>("/api/v1/shells", body));
    if (!task) return;
    close();
    await navigate(`/shells/${task.id}`);
  };
  return (
    <Form act={act} busy={busy} disabled={!host || reason.trim() === ""} why={why} label={t("shells.openSend")} close={close}>
      {known ? (
        <p className="effect">
          <Plain text={known.name} most={100} />
        </p>
      ) : (
        <HostField host={host} set={setHost} />
      )}
      <div>
        <SegmentedControl fullWidth value={mode} onChange={setMode} aria-label={t("shells.mode")}
          data={["restricted", "full"].map((value) => ({ value, label: t(`shells.modes.${value}`) }))} />
        <p className="dim under">{t(`shells.modeHint.${mode}`)}</p>
      </div>
      <Textarea label={t("order.reason")} description={t("order.reasonHint")} value={reason} required data-autofocus maxLength={500} autosize minRows={2}
        onChange={(event) => setReason(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.form?.requestSubmit();
        }} />
      <p className="dim">{t("shells.recordedHint")}</p>
    </Form>
  );
}
