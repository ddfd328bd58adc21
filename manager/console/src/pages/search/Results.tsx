// What a search found, one line each; a line opens to all fields. Only what is on the screen is drawn.
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, useState, type KeyboardEvent } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import type { Row } from "../../api/lists";
import type { Rows } from "../../api/rows";
import type { StoredEvent } from "../../api/types";
import { Fields } from "../../parts/Fields";
import { Icon } from "../../parts/Icon";
import { Plain } from "../../parts/Plain";
import { exact } from "../../parts/Time";
import { summary } from "../events/summary";

const LINE = 32;
const AHEAD = 40;

interface Props {
  rows: Rows<Row<StoredEvent>>;
  query: string;
  search: (query: string) => void;
}

export function Results({ rows: { rows: list, more, next }, query, search }: Props) {
  const { t, i18n } = useTranslation();
  const scroll = useRef<HTMLDivElement>(null);
  const [opened, setOpened] = useState<Set<string>>(new Set());
  const [at, setAt] = useState(0);
  const virtual = useVirtualizer({
    count: list.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => LINE,
    overscan: 8,
    getItemKey: (index) => list[index]?.id ?? index,
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => {
    if (more && last >= list.length - AHEAD) next();
  }, [last, list.length, more, next]);

  const toggle = (id: string) =>
    setOpened((before) => {
      const after = new Set(before);
      if (!after.delete(id)) after.add(id);
      return after;
    });
  const keys = (event: KeyboardEvent) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.floor((scroll.current?.clientHeight ?? 320) / LINE) - 1;
    const steps: Record<string, number> = {
      ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: list.length - 1,
    };
    const row = list[at];
    if (event.key in steps) {
      const index = Math.max(0, Math.min(list.length - 1, steps[event.key] ?? at));
      setAt(index);
      virtual.scrollToIndex(index);
    } else if ((event.key === "Enter" || event.key === " ") && row) toggle(row.id);
    else return;
    event.preventDefault();
  };
  return (
    <div className="table-frame">
      <div className="toolbar">
        <span className="dim count" aria-live="polite">
          {t(more ? "search.atLeast" : "search.found", { count: list.length })}
        </span>
        <span className="grow" />
        <span className="dim count">{t("search.newest")}</span>
      </div>
      <div className="table results" role="list" aria-label={t("menu.search")} tabIndex={0} ref={scroll} onKeyDown={keys} data-table>
        <div className="rows" role="presentation" style={{ height: virtual.getTotalSize() }}>
          {items.map((item) => {
            const event = list[item.index];
            if (!event) return null;
            const on = opened.has(event.id);
            return (
              <div key={item.key} role="listitem" data-index={item.index} ref={virtual.measureElement} className={`result-row ${item.index === at ? "at" : ""}`}
                style={{ transform: `translateY(${item.start}px)` }}>
                <button type="button" className="result-line" aria-expanded={on} tabIndex={-1}
                  onClick={() => {
                    setAt(item.index);
                    if (!getSelection()?.toString()) toggle(event.id);
                  }}>
                  <span className={on ? "turn on" : "turn"}>
                    <Icon name="right" size={12} />
                  </span>
                  <time dateTime={new Date(event.time_ms).toISOString()}>{exact(event.time_ms, i18n.language)}</time>
                  <span className="mark">{t(`eventKind.${event.kind}`, { defaultValue: event.kind })}</span>
                  <span className="host">
                    <Plain text={event.host} most={60} />
                  </span>
                  <span className="line">
                    <Plain text={summary(event)} mono most={240} />
                  </span>
                </button>
                {on && (
                  <div className="opened">
                    <Link to={`/events/${event.number}`}>{t("search.toEvent")}</Link>
                    <Fields event={event} query={query} search={search} />
                  </div>
                )}
              </div>
            );
          })}
        </div>
      </div>
    </div>
  );
}
