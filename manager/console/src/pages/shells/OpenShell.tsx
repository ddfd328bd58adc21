// Opens a shell: where, which kind, and why. Whoever may not open one never sees this.
import { Button, Group, Modal, SegmentedControl, Select, Textarea } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useNavigate } from "react-router";
import { post } from "../../api/client";
import { queries, useSome } from "../../api/queries";
import type { Host, Task } from "../../api/types";
import { useReason } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { visible } from "../../parts/visible";

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
      {opened && <Form close={close} {...place} />}
    </Modal>
  );
}

function Form({ close, host: known, alert }: Omit<Props, "opened">) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const explain = useReason();
  const [host, setHost] = useState(known ?? null);
  const [mode, setMode] = useState("restricted");
  const [reason, setReason] = useState("");
  const [why, setWhy] = useState("");
  const [busy, setBusy] = useState(false);
  const send = async () => {
    if (!host) return;
    setBusy(true);
    setWhy("");
    try {
      const task = await post<Task>("/api/v1/shells", { host: host.id, reason: reason.trim(), restricted: mode === "restricted", alert: alert ?? null });
      void queries.invalidateQueries({ queryKey: ["tasks"] });
      close();
      await navigate(`/shells/${task.id}`);
    } catch (error) {
      setWhy(explain(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
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
      <p className="why" role="alert">
        {why}
      </p>
      <Group justify="flex-end">
        <Button variant="default" onClick={close}>
          {t("cancel")}
        </Button>
        <Button type="submit" loading={busy} disabled={!host || reason.trim() === ""}>
          {t("shells.openSend")}
        </Button>
      </Group>
    </form>
  );
}

type Place = { id: string; name: string } | null;

function HostField({ host, set }: { host: Place; set: (host: Place) => void }) {
  const { t } = useTranslation();
  const [typed, setTyped] = useState("");
  const [text] = useDebouncedValue(typed, 250);
  // What stands in the field once a host is chosen is its name, and no search for more.
  const hosts = useSome<Host>("hosts", { text: host && text === visible(host.name) ? "" : text, limit: 50 });
  const known = (hosts.data?.items ?? []).filter((one) => !one.revoked_ms);
  const data = known.map((one) => ({ value: one.id, label: visible(one.name), disabled: !one.connected }));
  if (host && !data.some((one) => one.value === host.id)) data.unshift({ value: host.id, label: visible(host.name), disabled: false });
  return (
    <Select label={t("alerts.host")} placeholder={t("model.chooseHost")} data={data} value={host?.id ?? null} searchable required
      searchValue={typed} onSearchChange={setTyped} filter={({ options }) => options} nothingFoundMessage={t("hosts.noMatch")}
      onChange={(id) => set(known.find((one) => one.id === id) ?? null)} />
  );
}
