// What a page shows stands in its address, so that it can be sent to somebody and gone back to.
import { useCallback } from "react";
import { useSearchParams } from "react-router";

/** One word of the address; without it the usual one. */
export function useParam(name: string, usual = ""): [string, (value: string) => void] {
  const [params, setParams] = useSearchParams();
  const set = useCallback(
    (value: string) =>
      setParams(
        (before) => {
          const next = new URLSearchParams(before);
          if (value === usual) next.delete(name);
          else next.set(name, value);
          return next;
        },
        { replace: true },
      ),
    [name, setParams, usual],
  );
  return [params.get(name) ?? usual, set];
}

export interface Span {
  from_ms: number | null;
  until_ms: number | null;
}

export const PRESETS = ["1h", "24h", "7d", "30d", "all"] as const;
const UNITS: Record<string, number> = { h: 3_600_000, d: 86_400_000 };
/** What "since ever" begins with: the API's own usual period is a day. */
const EVER = 0;

/** `24h`, `7d`, `all` or `FROM-UNTIL` in milliseconds; nothing where it is none of these. */
export function span(text: string, now: number): Span | null {
  if (text === "all") return { from_ms: EVER, until_ms: null };
  const back = /^(\d{1,4})([hd])$/.exec(text);
  if (back) return { from_ms: now - Number(back[1]) * (UNITS[back[2] ?? ""] ?? 0), until_ms: null };
  const both = /^(\d{1,15})-(\d{1,15})$/.exec(text);
  if (both && Number(both[1]) < Number(both[2])) return { from_ms: Number(both[1]), until_ms: Number(both[2]) };
  return null;
}
