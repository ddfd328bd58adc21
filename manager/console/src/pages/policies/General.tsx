// What of a policy is one value each: how opens are held, what is left out, quarantine, isolation.
import { NumberInput, Select, Textarea, TextInput } from "@mantine/core";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import type { Editor } from "./EditPage";
import { listOf, put, strings } from "./document";

const LISTS: [string, string[]][] = [
  ["paths", ["on_access", "exclude", "paths"]],
  ["processes", ["on_access", "exclude", "processes"]],
  ["hashes", ["on_access", "exclude", "hashes"]],
  ["allow", ["isolation", "allow"]],
];

/** What stands at a place; nothing where there is no such table. */
const at = (document: object, path: string[]): unknown =>
  path.reduce<unknown>((value, name) => (value !== null && typeof value === "object" ? (value as Record<string, unknown>)[name] : undefined), document);

export function General({ editor }: { editor: Editor }) {
  const { t } = useTranslation();
  const { document, change } = editor;
  const mode = at(document, ["on_access", "mode"]);
  const deadline = at(document, ["on_access", "deadline_ms"]);
  const share = at(document, ["scan", "cpu_share"]);
  const size = (path: string[]) => String(at(document, path) ?? "");
  const number = (path: string[]) => (value: number | string) => change((one) => put(one, path, typeof value === "number" ? value : undefined));
  const text = (path: string[]) => (event: React.ChangeEvent<HTMLInputElement>) => {
    const said = event.currentTarget.value;
    change((one) => put(one, path, said === "" ? undefined : said));
  };
  return (
    <div className="padded stack">
      <p className="dim">{t("policies.unsetHint")}</p>
      <div className="pair">
        <Select label={t("policies.key.mode")} value={typeof mode === "string" ? mode : "unset"} allowDeselect={false}
          data={["unset", "block", "detect"].map((value) => ({ value, label: t(`policies.mode.${value}`) }))}
          onChange={(value) => change((one) => put(one, ["on_access", "mode"], value === "unset" ? undefined : value))} />
        <NumberInput label={t("policies.key.deadline")} value={typeof deadline === "number" ? deadline : ""} min={50} max={30_000} clampBehavior="none" allowDecimal={false}
          placeholder={t("policies.unset")} onChange={number(["on_access", "deadline_ms"])} />
        <TextInput label={t("policies.key.largest")} value={size(["on_access", "max_file_size"])} placeholder={t("policies.unset")} onChange={text(["on_access", "max_file_size"])} />
        <TextInput label={t("policies.key.quarantine")} value={size(["quarantine", "max_size"])} placeholder={t("policies.unset")} onChange={text(["quarantine", "max_size"])} />
        <NumberInput label={t("policies.key.share")} value={typeof share === "number" ? share : ""} min={1} max={100} clampBehavior="none" allowDecimal={false}
          placeholder={t("policies.unset")} onChange={number(["scan", "cpu_share"])} />
      </div>
      {LISTS.map(([name, path]) => (
        <Lines key={name} label={t(`policies.key.${name}`)} hint={t(`policies.keyHint.${name}`)} list={strings(at(document, path))}
          set={(list) => change((one) => put(one, path, list))} />
      ))}
    </div>
  );
}

/** A list, a line each. What is typed stays as it is typed until the document says something else. */
function Lines({ label, hint, list, set }: { label: string; hint: string; list: string[]; set: (list: string[] | undefined) => void }) {
  const [typed, setTyped] = useState(list.join("\n"));
  const said = list.join("\n");
  useEffect(() => setTyped((before) => ((listOf(before) ?? []).join("\n") === said ? before : said)), [said]);
  return (
    <Textarea label={label} description={hint} value={typed} autosize minRows={1} maxRows={8} spellCheck={false}
      onChange={(event) => {
        setTyped(event.currentTarget.value);
        set(listOf(event.currentTarget.value));
      }} />
  );
}
