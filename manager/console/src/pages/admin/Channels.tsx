// Notification channels: where alerts are told, how each stands, and a test of it.
import { Button, Modal, NumberInput, PasswordInput, Select, Switch, Textarea, TextInput } from "@mantine/core";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { post, put, remove } from "../../api/client";
import { useAll } from "../../api/queries";
import { LEVELS, type Channel, type ChannelBody } from "../../api/types";
import { useParam } from "../../parts/address";
import { Facts } from "../../parts/Facts";
import { Find } from "../../parts/Filter";
import { Icon } from "../../parts/Icon";
import { Empty } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { rowsOf } from "../../parts/rowsOf";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { visible } from "../../parts/visible";
import { blank, body, fieldsOf, KINDS, placeOf, type Fields } from "./channel";
import { Form, useSend } from "../../parts/Form";
import { useOpened } from "./opened";

const stateOf = (channel: Channel) => (!channel.enabled ? "off" : channel.failures > 0 ? "failing" : channel.sent_ms ? "works" : "unused");

export function Channels() {
  const { t, i18n } = useTranslation();
  const channels = useAll<Channel>("notifications");
  const [text] = useParam("text");
  const { opened, open, set } = useOpened();
  const columns: Column<Channel>[] = useMemo(
    () => [
      { key: "name", label: t("channels.name"), width: "minmax(110px, 1fr)", phone: true, cell: (c) => <Plain text={c.name} most={80} />, text: (c) => c.name },
      { key: "kind", label: t("alerts.kind"), width: "90px", phone: true, cell: (c) => t(`channels.kind.${c.config.kind}`), text: (c) => c.config.kind },
      { key: "place", label: t("channels.place"), width: "minmax(140px, 2fr)", cell: (c) => <Plain text={placeOf(c)} most={160} />, text: placeOf },
      { key: "state", label: t("alerts.state"), width: "110px", phone: true, cell: (c) => <span className={`mark channel-${stateOf(c)}`}>{t(`channels.state.${stateOf(c)}`)}</span>, text: stateOf },
      { key: "level", label: t("channels.level"), width: "110px", cell: (c) => t(`level.${c.min_level}`), text: (c) => c.min_level },
      { key: "waiting", label: t("channels.waiting"), width: "80px", cell: (c) => <span className="number">{c.waiting_alerts}</span>, text: (c) => String(c.waiting_alerts) },
      { key: "sent", label: t("channels.sent"), width: "110px", cell: (c) => <Time ms={c.sent_ms} />, text: (c) => (c.sent_ms ? exact(c.sent_ms, i18n.language) : "") },
      { key: "error", label: t("channels.error"), width: "minmax(100px, 2fr)", cell: (c) => <Plain text={c.error} most={160} />, text: (c) => c.error },
    ],
    [t, i18n.language],
  );
  const channel = channels.data?.find((one) => one.id === opened);
  return (
    <>
      <Table name="channels" label={t("admin.notifications")} columns={columns} open={(one) => open(one.id)}
        mark={(one) => (one.enabled ? (one.failures > 0 ? "bad" : "") : "off")}
        rows={rowsOf(channels, (one) => `${one.name} ${placeOf(one)}`.toLowerCase().includes(text.toLowerCase()))}
        empty={<Empty title={t("channels.none")} hint={t("channels.noneHint")} />}
        tools={
          <>
            <Find label={t("channels.find")} />
            <Button size="xs" leftSection={<Icon name="plus" size={14} />} onClick={() => set("new")}>
              {t("channels.add")}
            </Button>
          </>
        } />
      <Modal opened={opened === "new" || channel !== undefined} onClose={() => set("")} size="lg" title={channel ? visible(channel.name) : t("channels.add")}>
        {(opened === "new" || channel) && <Edit key={channel ? `${channel.id} ${channel.changed_ms}` : "new"} {...(channel ? { channel } : {})} set={set} />}
      </Modal>
    </>
  );
}

function Edit({ channel, set }: { channel?: Channel; set: (id: string) => void }) {
  const { t } = useTranslation();
  const { send, busy, why } = useSend("notifications");
  const [fields, setFields] = useState<Fields>(() => (channel ? fieldsOf(channel) : blank()));
  const [gone, setGone] = useState(false);
  const change = <K extends keyof Fields>(name: K, value: Fields[K]) => setFields((before) => ({ ...before, [name]: value }));
  const text = (name: "name" | "server" | "user" | "from" | "url", label: string, more: object = {}) => (
    <TextInput label={label} value={fields[name]} autoComplete="off" onChange={(event) => change(name, event.currentTarget.value)} {...more} />
  );
  const act = async () => {
    const wanted: ChannelBody = body(fields);
    const done = await send(() => (channel ? put<Channel>(`/api/v1/notifications/${channel.id}`, wanted) : post<Channel>("/api/v1/notifications", wanted)));
    // A new one is tested next.
    if (done) set(channel ? "" : done.id);
  };
  const drop = async () => {
    const done = channel && (await send(async () => {
      await remove(`/api/v1/notifications/${channel.id}`);
      return true;
    }));
    if (done) set("");
  };
  const { kind } = fields;
  return (
    <>
      {channel && <State channel={channel} />}
      <Form act={act} busy={busy} why={why} label={t(channel ? "users.save" : "channels.make")} close={() => set("")}>
        <div className="pair">
          {text("name", t("channels.name"), { required: true, maxLength: 100, "data-autofocus": !channel })}
          <Select label={t("alerts.kind")} value={kind} allowDeselect={false} onChange={(value) => value && setFields((before) => ({ ...before, ...blank(value as Fields["kind"]), name: before.name }))}
            data={KINDS.map((value) => ({ value, label: t(`channels.kind.${value}`) }))} />
        </div>
        {kind === "webhook" ? (
          text("url", t("channels.url"), { required: true, type: "url", pattern: "https://.*", placeholder: "https://" })
        ) : (
          <div className="pair">
            {text("server", t("channels.server"), { required: true })}
            <NumberInput label={t("channels.port")} value={fields.port} min={1} max={65_535} required allowDecimal={false} onChange={(value) => change("port", Number(value))} />
          </div>
        )}
        {kind === "email" && (
          <>
            <div className="pair">
              <Select label={t("channels.tls")} value={fields.tls} allowDeselect={false} data={[...TLS]} onChange={(value) => change("tls", value as Fields["tls"])} />
              {text("user", t("channels.user"))}
            </div>
            {text("from", t("channels.from"), { required: true })}
            <Textarea label={t("channels.to")} description={t("channels.toHint")} value={fields.to} required autosize minRows={2}
              onChange={(event) => change("to", event.currentTarget.value)} />
          </>
        )}
        {kind === "syslog" && (
          <Select label={t("channels.transport")} value={fields.transport} allowDeselect={false} data={[...TRANSPORTS]} onChange={(value) => change("transport", value as Fields["transport"])} />
        )}
        {kind !== "email" && (
          <Select label={t("channels.format")} value={fields.format} allowDeselect={false} data={kind === "webhook" ? [...WEBHOOK] : [...SYSLOG]}
            onChange={(value) => change("format", value as Fields["format"])} />
        )}
        {kind !== "syslog" && (
          <PasswordInput label={t(`channels.secret.${kind}`)} {...(channel?.has_secret ? { description: t("channels.secretKept") } : {})} value={fields.secret}
            autoComplete="new-password" onChange={(event) => change("secret", event.currentTarget.value)} />
        )}
        <div className="pair">
          <Select label={t("channels.level")} value={fields.level} allowDeselect={false} onChange={(value) => change("level", value ?? "medium")}
            data={LEVELS.map((value) => ({ value, label: t(`level.${value}`) }))} />
          <NumberInput label={t("channels.window")} description={t("channels.windowHint")} value={fields.window} min={0} max={3_600} required allowDecimal={false}
            onChange={(value) => change("window", Number(value))} />
        </div>
        <Textarea label={t("channels.authority")} description={t("channels.authorityHint")} value={fields.authority} autosize minRows={1} maxRows={6} classNames={{ input: "mono" }}
          onChange={(event) => change("authority", event.currentTarget.value)} />
        <Switch label={t("channels.enabled")} checked={fields.enabled} onChange={(event) => change("enabled", event.currentTarget.checked)} />
      </Form>
      {channel && (
        <div className={gone ? "effect danger" : ""}>
          {gone && <p>{t("channels.removeEffect", { count: channel.waiting_alerts })}</p>}
          <Button size="compact-sm" color="red" variant={gone ? "filled" : "subtle"} loading={busy} onClick={() => (gone ? void drop() : setGone(true))}>
            {t("channels.remove")}
          </Button>
        </div>
      )}
    </>
  );
}

const TLS = ["starttls", "tls", "none"] as const;
const TRANSPORTS = ["tls", "tcp", "udp"] as const;
const WEBHOOK = ["holdfast", "ocsf"] as const;
const SYSLOG = ["cef", "ecs", "ocsf"] as const;

interface Answer {
  taken: boolean;
  answer: string;
  took_ms: number;
}

/** How it stands, and a message now. */
function State({ channel }: { channel: Channel }) {
  const { t } = useTranslation();
  const { send, busy, why } = useSend("notifications");
  const [answer, setAnswer] = useState<Answer | null>(null);
  const test = async () => {
    setAnswer(null);
    setAnswer(await send(() => post<Answer>(`/api/v1/notifications/${channel.id}/test`, undefined)));
  };
  return (
    <div className="effect channel">
      <Facts
        rows={[
          [t("channels.sent"), <Time key="sent" ms={channel.sent_ms} />],
          [t("channels.told"), t("channels.toldOf", { messages: channel.messages, detections: channel.detections })],
          [t("channels.waiting"), channel.waiting_alerts],
          [t("channels.error"), channel.error ? <Plain text={channel.error} most={300} /> : null],
        ]}
      />
      <div className="actions">
        <Button size="compact-sm" variant="default" loading={busy} onClick={() => void test()}>
          {t("channels.test")}
        </Button>
        <span role="status" className={answer && !answer.taken ? "why" : ""}>
          {answer && (
            <>
              <strong>{t(answer.taken ? "channels.taken" : "channels.notTaken", { ms: answer.took_ms })}</strong> <Plain text={answer.answer} most={300} />
            </>
          )}
          {why}
        </span>
      </div>
    </div>
  );
}
