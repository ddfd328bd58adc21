// What the list of scans and the page of one have in common.
import { useCallback } from "react";
import { useTranslation } from "react-i18next";
import type { Scan } from "../../api/types";
import { visible } from "../../parts/visible";

/** States that a scan ends in. */
export const ENDS = ["done", "cancelled", "interrupted", "skipped"] as const;

export function ScanState({ state = "" }: { state: string | undefined }) {
  const { t } = useTranslation();
  return <span className={`mark scan-${state}`}>{t(`scanState.${state}`, { defaultValue: visible(state) })}</span>;
}

/** A find is late when the file had lain there for at least so long, seconds. */
const LATE_S = 86_400;

export const lateOf = (scan: Scan) => (scan.finds ?? []).filter((find) => (find.late?.lain_s ?? 0) >= LATE_S).length;

/** A length of time in words. */
export function useSpan() {
  const { t } = useTranslation();
  return useCallback(
    (ms: number | undefined): string => {
      if (ms === undefined) return "";
      const seconds = Math.round(ms / 1000);
      if (seconds < 60) return t("span.seconds", { count: seconds });
      return t("span.minutes", { minutes: Math.floor(seconds / 60), seconds: seconds % 60 });
    },
    [t],
  );
}
