// Times: how long ago, with the whole time beside the pointer. All of one page move on together.
import { useSyncExternalStore } from "react";
import { useWords } from "../words/context";

const listeners = new Set<() => void>();
let now = Date.now();
let timer: ReturnType<typeof setInterval> | null = null;

function subscribe(listener: () => void) {
  listeners.add(listener);
  timer ??= setInterval(() => {
    now = Date.now();
    for (const one of listeners) one();
  }, 5_000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0 && timer) {
      clearInterval(timer);
      timer = null;
    }
  };
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
  ["second", 1],
];

/** To make a format takes longer than to draw its row. */
function kept<T>(make: (language: string) => T): (language: string) => T {
  const made = new Map<string, T>();
  return (language) => {
    const format = made.get(language) ?? make(language);
    made.set(language, format);
    return format;
  };
}

const relative = kept((language) => new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" }));
const absolute = kept((language) => new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" }));

export function ago(ms: number, to: number, language: string): string {
  const seconds = Math.round((ms - to) / 1000);
  const [unit, size] = STEPS.find(([, step]) => Math.abs(seconds) >= step) ?? ["second", 1];
  return relative(language).format(Math.trunc(seconds / size), unit);
}

export const exact = (ms: number, language: string) => absolute(language).format(ms);

/** Beyond this a time is no time that a calendar has. */
const LAST = 8.64e15;

export function Time({ ms, whole = false }: { ms: number | null | undefined; whole?: boolean }) {
  const { t, language } = useWords();
  const at = useSyncExternalStore(subscribe, () => now);
  if (ms === null || ms === undefined || Math.abs(ms) > LAST) return <span className="dim">{t("time.never")}</span>;
  const long = exact(ms, language);
  return (
    <time dateTime={new Date(ms).toISOString()} title={long} className="nowrap">
      {whole ? long : ago(ms, Math.max(at, Math.min(ms, Date.now() + 5_000)), language)}
    </time>
  );
}
