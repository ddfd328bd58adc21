// From one day to another, both whole. Fetched when somebody wants it.
import "@mantine/dates/styles.css";
import "dayjs/locale/ja";
import { Button, Group, Stack } from "@mantine/core";
import { DatePicker, DatesProvider } from "@mantine/dates";
import { useState } from "react";
import { useTranslation } from "react-i18next";

const DAY = 86_400_000;

export default function Calendar({ choose }: { choose: (from: number, until: number) => void }) {
  const { t, i18n } = useTranslation();
  const [[from, until], setRange] = useState<[string | null, string | null]>([null, null]);
  const start = (day: string) => new Date(`${day}T00:00:00`).getTime();
  return (
    <DatesProvider settings={{ locale: i18n.language, firstDayOfWeek: 1 }}>
      <Stack>
        <DatePicker type="range" allowSingleDateInRange value={[from, until]} onChange={setRange} maxDate={new Date()} />
        <Group justify="flex-end">
          <Button
            disabled={!from}
            onClick={() => from && choose(start(from), start(until ?? from) + DAY)}
          >
            {t("period.show")}
          </Button>
        </Group>
      </Stack>
    </DatesProvider>
  );
}
