// All values of an event, each with what can be done by it: look for it, leave it out, fetch the file.
import { Menu } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useClipboard } from "@mantine/hooks";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { useNavigate } from "react-router";
import type { StoredEvent } from "../api/types";
import { useRole } from "../shell/session";
import { Icon } from "./Icon";
import { OrderDialog, type Order } from "./OrderDialog";
import { Plain } from "./Plain";
import { fields, MOST_FIELDS, narrowed, type Field } from "./terms";

interface Props {
  event: StoredEvent;
  /** The query that it was found by; without it the search begins anew. */
  query?: string;
  /** Where to look: the page's own search, or that page. */
  search?: (query: string) => void;
}

export function Fields({ event, query = "", search }: Props) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { operator } = useRole();
  const clipboard = useClipboard();
  const [order, setOrder] = useState<Order | null>(null);
  const list = useMemo(() => fields(event.event), [event.event]);
  const look = (term: string, out: boolean) => {
    const next = narrowed(query, term, out);
    if (search) search(next);
    else void navigate(`/search?${new URLSearchParams({ query: next })}`);
  };
  const collect = (path: string) =>
    setOrder({ wish: { kind: "collect", path }, targets: [{ host_id: event.host_id, host: event.host }] });
  const copy = (value: string) => {
    clipboard.copy(value);
    notifications.show({ message: t("copy.done") });
  };
  const items = (field: Field) => {
    const { term } = field;
    return (
      <>
        {term !== null && (
          <>
            <Menu.Item onClick={() => look(term, false)}>{t("fields.only")}</Menu.Item>
            <Menu.Item onClick={() => look(term, true)}>{t("fields.out")}</Menu.Item>
          </>
        )}
        {field.file && operator && <Menu.Item onClick={() => collect(field.value)}>{t("order.collect.do")}</Menu.Item>}
        <Menu.Item onClick={() => copy(field.value)}>{t("copy.do")}</Menu.Item>
      </>
    );
  };
  return (
    <>
      <dl className="fields">
        {list.map((field) => (
          <div key={field.name}>
            <dt>
              <Plain text={field.name} most={120} />
            </dt>
            <dd>
              <Menu position="bottom-start" withinPortal>
                <Menu.Target>
                  <button type="button" className="dots" aria-label={t("fields.menu", { name: field.name })}>
                    <Icon name="dots" size={14} />
                  </button>
                </Menu.Target>
                <Menu.Dropdown>{items(field)}</Menu.Dropdown>
              </Menu>
              <Plain text={field.value} most={400} mono />
            </dd>
          </div>
        ))}
      </dl>
      {list.length >= MOST_FIELDS && <p className="dim hint">{t("fields.cut", { count: MOST_FIELDS })}</p>}
      <OrderDialog order={order} close={() => setOrder(null)} />
    </>
  );
}
