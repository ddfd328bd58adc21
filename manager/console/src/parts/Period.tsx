// Which time: presets and a calendar. Kept in the address as `period`.
import { Button, Menu, Modal } from "@mantine/core";
import { lazy, memo, Suspense, useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { PRESETS, span, useParam, type Span } from "./address";
import { Icon } from "./Icon";
import { exact } from "./Time";
import { Waiting } from "./Notice";

const Calendar = lazy(() => import("./Calendar"));

/** The period of the address, as it was when it was chosen: lists do not move on by themselves. */
export function usePeriod(usual: string): [string, Span, (text: string) => void] {
  const [text, set] = useParam("period", usual);
  const chosen = useMemo(() => {
    const now = Math.floor(Date.now() / 60_000) * 60_000;
    return span(text, now) ?? span(usual, now) ?? { from_ms: null, until_ms: null };
  }, [text, usual]);
  return [text, chosen, set];
}

export const Period = memo(function Period({ usual }: { usual: string }) {
  const { t, i18n } = useTranslation();
  const [text, chosen, set] = usePeriod(usual);
  const [calendar, setCalendar] = useState(false);
  const named = (PRESETS as readonly string[]).includes(text);
  const label = named
    ? t(`period.${text}`)
    : t("period.between", {
        from: exact(chosen.from_ms ?? 0, i18n.language),
        until: exact(chosen.until_ms ?? Date.now(), i18n.language),
      });
  return (
    <>
      <Menu position="bottom-start">
        <Menu.Target>
          <Button size="xs" variant="default" leftSection={<Icon name="calendar" size={14} />}>
            {label}
          </Button>
        </Menu.Target>
        <Menu.Dropdown>
          {PRESETS.map((preset) => (
            <Menu.Item key={preset} onClick={() => set(preset)} fw={preset === text ? 700 : 400}>
              {t(`period.${preset}`)}
            </Menu.Item>
          ))}
          <Menu.Divider />
          <Menu.Item onClick={() => setCalendar(true)}>{t("period.calendar")}</Menu.Item>
        </Menu.Dropdown>
      </Menu>
      <Modal opened={calendar} onClose={() => setCalendar(false)} title={t("period.calendar")} size="auto">
        <Suspense fallback={<Waiting />}>
          <Calendar
            choose={(from, until) => {
              set(`${from}-${until}`);
              setCalendar(false);
            }}
          />
        </Suspense>
      </Modal>
    </>
  );
});
