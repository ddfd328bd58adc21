// How a host comes here: a token for so many of them, and the one command that it needs.
import { Button, Group, Modal, NumberInput, Select, TextInput } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { post } from "../../api/client";
import type { EnrollmentToken } from "../../api/types";
import { Copy } from "../../parts/Copy";
import { Form, useSend } from "../../parts/Form";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";

const HOURS = ["1", "24", "168", "720"];

/** As a shell needs it. */
const quoted = (text: string) => (/^[\w.:/[\]-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

export function AddHost({ opened, close }: { opened: boolean; close: () => void }) {
  const { t } = useTranslation();
  const [made, setMade] = useState<EnrollmentToken | null>(null);
  const leave = () => {
    setMade(null);
    close();
  };
  return (
    <Modal opened={opened} onClose={leave} title={t("add.title")} size="lg">
      {made ? <Made token={made} leave={leave} /> : <Wanted done={setMade} leave={leave} />}
    </Modal>
  );
}

function Wanted({ done, leave }: { done: (token: EnrollmentToken) => void; leave: () => void }) {
  const { t } = useTranslation();
  const { send, busy, why } = useSend("enrollment-tokens");
  const [group, setGroup] = useState("default");
  const [uses, setUses] = useState<number | string>(1);
  const [hours, setHours] = useState("1");
  const act = async () => {
    const body = { group, uses: Number(uses), valid_s: Number(hours) * 3_600 };
    const token = await send(() => post<EnrollmentToken>("/api/v1/enrollment-tokens", body));
    if (token) done(token);
  };
  return (
    <Form act={act} busy={busy} why={why} label={t("add.make")} close={leave}>
      <p className="dim">{t("add.lead")}</p>
      <Group grow align="start">
        <TextInput label={t("add.group")} value={group} required maxLength={100} onChange={(event) => setGroup(event.currentTarget.value)} />
        <NumberInput label={t("add.uses")} value={uses} min={1} max={100_000} required onChange={setUses} />
        <Select label={t("add.valid")} value={hours} allowDeselect={false} onChange={(value) => setHours(value ?? "1")}
          data={HOURS.map((value) => ({ value, label: t("order.isolate.hours", { count: Number(value) }) }))} />
      </Group>
    </Form>
  );
}

function Made({ token, leave }: { token: EnrollmentToken; leave: () => void }) {
  const { t } = useTranslation();
  const urls = token.urls ?? [];
  const [url, setUrl] = useState(urls[0] ?? "");
  const command = `sudo holdfast enroll --manager ${quoted(url)} --token ${quoted(token.token ?? "")} --ca-fingerprint ${quoted(token.ca_fingerprint ?? "")}`;
  return (
    <div className="stack">
      <p>{t("add.run", { count: token.uses })}</p>
      {urls.length > 1 && <Select label={t("add.url")} data={urls} value={url} allowDeselect={false} onChange={(value) => setUrl(value ?? url)} />}
      <div className="command wrap">
        <code data-command>
          <Plain text={command} most={2000} />
        </code>
        <Copy text={command} />
      </div>
      <p className="dim">
        {t("add.once")} <Time ms={token.expires_ms} whole />
      </p>
      <Group justify="flex-end">
        <Button onClick={leave}>{t("add.done")}</Button>
      </Group>
    </div>
  );
}
