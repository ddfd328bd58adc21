// Searches that somebody keeps: in this browser alone, which the page says.
import { ActionIcon, Button, Group, Menu, Modal, TextInput } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Icon } from "../../parts/Icon";
import { Plain } from "../../parts/Plain";

interface Search {
  name: string;
  query: string;
  period: string;
}

const KEPT = "holdfast.searches";
const MOST = 100;
const LONGEST = 80;

function read(): Search[] {
  try {
    const list: unknown = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
    if (!Array.isArray(list)) return [];
    return list.filter((one): one is Search =>
      ["name", "query", "period"].every((field) => typeof (one as Record<string, unknown> | null)?.[field] === "string")).slice(0, MOST);
  } catch {
    // Nothing of ours.
    return [];
  }
}

export function Saved({ query, period, open }: { query: string; period: string; open: (search: Search) => void }) {
  const { t } = useTranslation();
  const [list, setList] = useState(read);
  const [naming, setNaming] = useState(false);
  const [name, setName] = useState("");
  const keep = (next: Search[]) => {
    localStorage.setItem(KEPT, JSON.stringify(next));
    setList(next);
  };
  const save = () => {
    const one = { name: name.trim(), query, period };
    keep([one, ...list.filter((other) => other.name !== one.name)].slice(0, MOST));
    setNaming(false);
    setName("");
  };
  return (
    <>
      <Menu position="bottom-end" width={320}>
        <Menu.Target>
          <Button size="xs" variant="default" leftSection={<Icon name="star" size={14} />}>
            {t("saved.title")}
          </Button>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item disabled={query.trim() === ""} onClick={() => setNaming(true)}>
            {t("saved.keep")}
          </Menu.Item>
          {list.length > 0 && <Menu.Divider />}
          {list.map((one) => (
            <div key={one.name} className="saved" role="none">
              <Menu.Item onClick={() => open(one)}>
                <Plain text={one.name} most={60} />
                <small>
                  <Plain text={one.query} mono most={80} />
                </small>
              </Menu.Item>
              <ActionIcon role="menuitem" variant="subtle" color="gray" size="sm" aria-label={t("saved.forget", { name: one.name })}
                onClick={() => keep(list.filter((other) => other.name !== one.name))}>
                <Icon name="close" size={13} />
              </ActionIcon>
            </div>
          ))}
          <Menu.Label>{t(list.length ? "saved.here" : "saved.none")}</Menu.Label>
        </Menu.Dropdown>
      </Menu>
      <Modal opened={naming} onClose={() => setNaming(false)} title={t("saved.keep")}>
        <form
          className="stack"
          onSubmit={(event) => {
            event.preventDefault();
            save();
          }}
        >
          <TextInput label={t("saved.name")} description={t("saved.here")} value={name} required maxLength={LONGEST} data-autofocus
            onChange={(event) => setName(event.currentTarget.value)} />
          <Group justify="flex-end">
            <Button variant="default" onClick={() => setNaming(false)}>
              {t("cancel")}
            </Button>
            <Button type="submit" disabled={name.trim() === ""}>
              {t("saved.send")}
            </Button>
          </Group>
        </form>
      </Modal>
    </>
  );
}
