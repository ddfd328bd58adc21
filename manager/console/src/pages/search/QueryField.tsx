// Where a query is written: completes fields and the values that there are few of. Enter asks, Tab or
// Enter takes what is chosen in the list, Escape closes it.
import { Button, Combobox, Textarea, useCombobox } from "@mantine/core";
import { useEffect, useRef, useState, type KeyboardEvent } from "react";
import { useTranslation } from "react-i18next";
import { useSome } from "../../api/queries";
import { EVENT_KINDS, LEVELS, type Host } from "../../api/types";
import { Icon } from "../../parts/Icon";
import { Plain } from "../../parts/Plain";
import { FIELDS, openTerm, term, unitsOf } from "../../parts/terms";

const MOST = 12;
/** As the manager has it. */
const LONGEST = 2_048;
const ACTIONS = [
  "connect", "accept", "bind", "listen", "send", "dns_question", "dns_answer", "fork", "exit", "credentials", "ptrace",
  "memory_write", "signal", "module_load", "bpf_load", "memfd", "mount", "namespaces", "read", "write", "open_write", "create",
  "rename", "delete", "attributes", "mass_rewrite", "truncate", "restored", "restored_and_allowed", "deleted", "exported",
  "done", "cancelled", "interrupted", "skipped", "isolated", "released", "socket", "promiscuous",
];

interface Props {
  query: string;
  run: (query: string) => void;
  wrongAt: number | null;
}

interface Choice {
  insert: string;
  shown: string;
  about: string;
}

export function QueryField({ query, run, wrongAt }: Props) {
  const { t } = useTranslation();
  const [text, setText] = useState(query);
  const [cursor, setCursor] = useState(query.length);
  const field = useRef<HTMLTextAreaElement>(null);
  const list = useCombobox({ onDropdownClose: () => list.resetSelectedOption() });
  const open = openTerm(text, cursor);
  const hosts = useSome<Host>("hosts", { text: open?.field === "host" ? open.typed : "", limit: MOST });
  useEffect(() => {
    setText(query);
    setCursor(query.length);
  }, [query]);
  useEffect(() => {
    if (wrongAt === null) return;
    const at = unitsOf(query, wrongAt);
    field.current?.focus();
    field.current?.setSelectionRange(at, at);
  }, [query, wrongAt]);

  const choices = (): Choice[] => {
    if (!open) return [];
    const typed = open.typed.toLowerCase();
    const values = (names: readonly string[], about: (name: string) => string) =>
      names.filter((name) => name.startsWith(typed) && name !== typed).map((name) => ({ insert: `${name} `, shown: name, about: about(name) }));
    switch (open.field) {
      case null:
        return FIELDS.filter((name) => name.startsWith(typed)).map((name) => ({ insert: `${name}:`, shown: `${name}:`, about: t(`search.field.${name}`) }));
      case "kind":
        return values(EVENT_KINDS, (name) => t(`eventKind.${name}`));
      case "level":
        return values(LEVELS, (name) => t(`level.${name}`));
      case "action":
        return values(ACTIONS, () => "");
      case "host":
        return (hosts.data?.items ?? []).flatMap((host) => {
          const said = term("host", host.name)?.slice("host:".length);
          return said === undefined || host.name === open.typed ? [] : [{ insert: `${said} `, shown: host.name, about: host.facts.system ?? "" }];
        });
      default:
        return [];
    }
  };
  const found = choices().slice(0, MOST);
  const take = (choice: Choice) => {
    if (!open) return;
    const next = text.slice(0, open.from) + choice.insert + text.slice(cursor);
    const at = open.from + choice.insert.length;
    setText(next);
    setCursor(at);
    requestAnimationFrame(() => field.current?.setSelectionRange(at, at));
    if (choice.insert.endsWith(" ")) list.closeDropdown();
  };
  const ask = () => {
    list.closeDropdown();
    run(text.trim());
  };
  const keys = (event: KeyboardEvent) => {
    if (event.nativeEvent.isComposing) return;
    const at = list.getSelectedOptionIndex();
    const chosen = list.dropdownOpened ? found[at] : undefined;
    if (event.key === "Tab" && !event.shiftKey && list.dropdownOpened && open && (chosen || open.typed !== "")) {
      const first = chosen ?? found[0];
      if (!first) return;
      take(first);
    } else if (event.key === "Enter") {
      if (chosen) take(chosen);
      else ask();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const moved = () => setCursor(field.current?.selectionStart ?? text.length);
  return (
    <form
      className="query"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        ask();
      }}
    >
      <Combobox store={list} onOptionSubmit={(value) => {
        const choice = found[Number(value)];
        if (choice) take(choice);
      }}>
        <Combobox.Target withKeyboardNavigation>
          <Textarea ref={field} value={text} autosize minRows={1} maxRows={6} maxLength={LONGEST} spellCheck={false} autoComplete="off"
            aria-label={t("search.query")} placeholder={t("search.placeholder")} data-find className="grow"
            leftSection={<Icon name="search" size={14} />} error={wrongAt !== null}
            onChange={(event) => {
              // One line: a break is a space.
              setText(event.currentTarget.value.replaceAll("\n", " "));
              setCursor(event.currentTarget.selectionStart);
              list.openDropdown();
              list.resetSelectedOption();
            }}
            onKeyDown={keys} onKeyUp={moved} onClick={() => {
              moved();
              list.openDropdown();
            }} onBlur={() => list.closeDropdown()} />
        </Combobox.Target>
        <Combobox.Dropdown hidden={found.length === 0}>
          <Combobox.Options aria-label={t("search.choices")}>
            {found.map((choice, index) => (
              <Combobox.Option key={choice.shown} value={String(index)}>
                <span className="choice">
                  <Plain text={choice.shown} mono most={80} />
                  <small>
                    <Plain text={choice.about} most={100} />
                  </small>
                </span>
              </Combobox.Option>
            ))}
          </Combobox.Options>
        </Combobox.Dropdown>
      </Combobox>
      <Button type="submit">{t("search.do")}</Button>
    </form>
  );
}
