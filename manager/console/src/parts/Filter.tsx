// One choice of a list's filters, kept in the address.
import { CloseButton, Select, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { useParam } from "./address";
import { Icon } from "./Icon";
import { Plain } from "./Plain";

interface Choice {
  name: string;
  usual?: string;
  label: string;
  any: string;
  options: { value: string; label: string }[];
}

export function Choose({ name, usual = "", label, any, options }: Choice) {
  const [value, set] = useParam(name, usual);
  return (
    <Select size="xs" w={150} aria-label={label} allowDeselect={false} value={value || "any"} checkIconPosition="right"
      data={[{ value: "any", label: any }, ...options]}
      onChange={(next) => set(next === "any" ? (usual === "" ? "" : "any") : (next ?? usual))} />
  );
}

/** A filter that another page's link set; it can only be taken away. */
export function Only({ name, label, text }: { name: string; label: string; text?: string | undefined }) {
  const { t } = useTranslation();
  const [value, set] = useParam(name);
  if (!value) return null;
  return (
    <span className="only">
      {label} <Plain text={text ?? value} most={40} />
      <CloseButton size="xs" aria-label={t("table.without", { name: label })} onClick={() => set("")} />
    </span>
  );
}

/** What `/` goes to. */
export function Find({ label }: { label: string }) {
  const { t } = useTranslation();
  const [text, setText] = useParam("text");
  const [typed, setTyped] = useState(text);
  const later = useDebouncedCallback(setText, 250);
  useEffect(() => setTyped(text), [text]);
  return (
    <TextInput size="xs" w={240} value={typed} aria-label={label} placeholder={label} data-find maxLength={200}
      leftSection={<Icon name="search" size={14} />} rightSection={<kbd title={t("keys.find")}>{"/"}</kbd>}
      onChange={(event) => {
        setTyped(event.currentTarget.value);
        later(event.currentTarget.value);
      }} />
  );
}
