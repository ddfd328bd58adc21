// Scans that come again, as the policy says: in place of all that a host's own config has.
import { Button, NumberInput, Select, Switch, Textarea, TextInput } from "@mantine/core";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { Empty } from "../../parts/Notice";
import { visible } from "../../parts/visible";
import type { Editor } from "./EditPage";
import { listOf, put, scheduled, schedulesOf, strings, type Schedule } from "./document";

/** Schedules of one policy. */
const MOST = 100;

export function Schedules({ editor }: { editor: Editor }) {
  const { t } = useTranslation();
  const list = schedulesOf(editor.document);
  const add = () => {
    const names = new Set(list.map((one) => one.name));
    let number = list.length + 1;
    while (names.has(t("policies.scheduleName", { number }))) number += 1;
    editor.set(scheduled(editor.text, { name: t("policies.scheduleName", { number }), kind: "quick", every: "day at 01:00", catch_up: true }));
  };
  const at = (index: number) => (change: (schedule: Schedule) => void) =>
    editor.change((document) => {
      const schedule = schedulesOf(document)[index];
      if (schedule) change(schedule);
    });
  const remove = (index: number) =>
    editor.change((document) => {
      const rest = schedulesOf(document).filter((_, place) => place !== index);
      put(document, ["scan", "schedule"], rest.length ? rest : undefined);
    });
  return (
    <div className="padded stack">
      <p className="dim">{t("policies.schedulesHint")}</p>
      {list.length === 0 && <Empty title={t("policies.noSchedules")} hint={t("policies.noSchedulesHint")} />}
      {list.map((schedule, index) => (
        <Fields key={index} schedule={schedule} change={at(index)} remove={() => remove(index)} />
      ))}
      <div>
        <Button size="xs" variant="default" disabled={list.length >= MOST} onClick={add}>
          {t("policies.addSchedule")}
        </Button>
      </div>
    </div>
  );
}

function Fields({ schedule, change, remove }: { schedule: Schedule; change: (change: (schedule: Schedule) => void) => void; remove: () => void }) {
  const { t } = useTranslation();
  const name = String(schedule.name ?? "");
  const kind = schedule.kind ?? "paths";
  const when = schedule.cron === undefined ? "every" : "cron";
  const paths = strings(schedule.paths);
  const [typed, setTyped] = useState(paths.join("\n"));
  const said = paths.join("\n");
  useEffect(() => setTyped((before) => ((listOf(before) ?? []).join("\n") === said ? before : said)), [said]);
  const set = (key: keyof Schedule, value: unknown) => change((one) => put(one as object, [key], value));
  const scope = (next: string) =>
    change((one) => {
      put(one as object, ["kind"], next);
      if (next !== "paths") put(one as object, ["paths"], undefined);
    });
  return (
    <fieldset className="schedule">
      <legend>{visible(name)}</legend>
      <div className="pair">
        <TextInput label={t("policies.schedule.name")} value={name} maxLength={64} onChange={(event) => set("name", event.currentTarget.value)} />
        <Select label={t("field.scope")} value={kind} allowDeselect={false} data={["quick", "full", "paths"].map((value) => ({ value, label: t(`scope.${value}`) }))}
          onChange={(value) => scope(value ?? kind)} />
        <Select label={t("policies.schedule.when")} value={when} allowDeselect={false}
          data={["every", "cron"].map((value) => ({ value, label: t(`policies.when.${value}`) }))}
          onChange={(value) =>
            change((one) => {
              put(one as object, ["every"], value === "every" ? "day at 01:00" : undefined);
              put(one as object, ["cron"], value === "cron" ? "0 1 * * *" : undefined);
            })} />
        <TextInput label={t(`policies.when.${when}`)} description={t(`policies.whenHint.${when}`)} value={String((when === "cron" ? schedule.cron : schedule.every) ?? "")}
          onChange={(event) => set(when, event.currentTarget.value)} />
        <TextInput label={t("policies.schedule.jitter")} placeholder={t("policies.schedule.jitterHint")} value={schedule.jitter ?? ""} onChange={(event) => set("jitter", event.currentTarget.value || undefined)} />
        <TextInput label={t("policies.schedule.timezone")} placeholder={t("policies.schedule.timezoneHint")} value={schedule.timezone ?? ""} onChange={(event) => set("timezone", event.currentTarget.value || undefined)} />
        <NumberInput label={t("scans.share")} value={schedule.cpu_share ?? ""} min={1} max={100} clampBehavior="none" allowDecimal={false}
          onChange={(value) => set("cpu_share", typeof value === "number" ? value : undefined)} />
        <Switch label={t("policies.schedule.catchUp")} checked={schedule.catch_up === true} onChange={(event) => set("catch_up", event.currentTarget.checked || undefined)} />
      </div>
      {kind === "paths" && (
        <Textarea label={t("field.paths")} description={t("scans.pathsHint")} value={typed} autosize minRows={1} maxRows={8}
          onChange={(event) => {
            setTyped(event.currentTarget.value);
            set("paths", listOf(event.currentTarget.value));
          }} />
      )}
      <div>
        <Button size="compact-xs" variant="subtle" color="red" onClick={remove} aria-label={t("policies.removeOne", { name: visible(name) })}>
          {t("policies.remove")}
        </Button>
      </div>
    </fieldset>
  );
}
