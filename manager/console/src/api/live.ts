// What changes, as it changes. Each event names a thing; what shows that thing asks for it again.
//
// A stream of the manager ends after 15 minutes and comes back by itself. Whenever it comes back,
// everything on the page is asked for again, since what changed in between was told to nobody. The
// banner shows when it stays away. Many changes at once are asked for together.
import { useEffect, useSyncExternalStore } from "react";
import { queries } from "./queries";

type Noun = "alert" | "host" | "task" | "policy";
const NOUNS = ["alert", "host", "task", "policy"] as const;

/** How often a noun's lists are asked for again at most, ms. Hosts change with each heartbeat. */
const PACE: Record<Noun, number> = { alert: 250, task: 250, host: 2_000, policy: 250 };
/** How long a stream may be away before somebody is told, ms. */
const PATIENCE = 1_500;
/** Between two attempts of our own, where the browser makes none, ms. */
const AGAIN = 2_000;

export class Live {
  private source: EventSource | null = null;
  private away: ReturnType<typeof setTimeout> | null = null;
  private again: ReturnType<typeof setTimeout> | null = null;
  private waiting = new Map<Noun, { timer: ReturnType<typeof setTimeout> | null; ids: Set<string>; last: number }>();
  private listeners = new Set<() => void>();
  private changed = new Set<(noun: Noun, ids: Set<string>) => void>();
  private first = true;
  lost = false;

  subscribe = (listener: () => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  /** Tells of changes, put together. */
  onChange(listener: (noun: Noun, ids: Set<string>) => void) {
    this.changed.add(listener);
    return () => this.changed.delete(listener);
  }

  open() {
    this.source?.close();
    const source = new EventSource("/api/v1/live");
    this.source = source;
    source.onopen = () => {
      if (this.away) clearTimeout(this.away);
      this.away = null;
      this.tell(false);
      if (!this.first) this.everything();
      this.first = false;
    };
    source.onerror = () => {
      this.away ??= setTimeout(() => this.tell(true), PATIENCE);
      // The browser gives up for good when the answer is no stream, such as a 401 or a 503.
      if (source.readyState === EventSource.CLOSED) {
        void queries.invalidateQueries({ queryKey: ["session"] });
        if (this.again) clearTimeout(this.again);
        this.again = setTimeout(() => this.source === source && this.open(), AGAIN);
      }
    };
    for (const noun of NOUNS) {
      source.addEventListener(noun, (event) => {
        const { id } = JSON.parse((event as MessageEvent<string>).data) as { id: string };
        this.note(noun, id);
      });
    }
    source.addEventListener("missed", () => this.everything());
  }

  close() {
    this.source?.close();
    this.source = null;
    this.first = true;
    if (this.away) clearTimeout(this.away);
    if (this.again) clearTimeout(this.again);
    this.away = this.again = null;
    this.tell(false);
  }

  private everything() {
    void queries.invalidateQueries();
    for (const listener of this.changed) for (const noun of NOUNS) listener(noun, new Set());
  }

  private tell(lost: boolean) {
    if (this.lost === lost) return;
    this.lost = lost;
    for (const listener of this.listeners) listener();
  }

  private note(noun: Noun, id: string) {
    const waiting = this.waiting.get(noun) ?? { timer: null, ids: new Set<string>(), last: 0 };
    this.waiting.set(noun, waiting);
    waiting.ids.add(id);
    if (waiting.timer) return;
    const pause = Math.max(0, waiting.last + PACE[noun] - performance.now());
    waiting.timer = setTimeout(() => {
      const ids = waiting.ids;
      waiting.timer = null;
      waiting.ids = new Set();
      waiting.last = performance.now();
      this.again_for(noun, ids);
    }, pause);
  }

  private again_for(noun: Noun, ids: Set<string>) {
    for (const id of ids) void queries.invalidateQueries({ queryKey: [noun, id] });
    void queries.invalidateQueries({ queryKey: [`${noun}s`, "some"] });
    void queries.invalidateQueries({ queryKey: ["overview"] });
    if (noun === "policy") void queries.invalidateQueries({ queryKey: ["policies"] });
    // An alert shows its tasks.
    if (noun === "task") void queries.invalidateQueries({ queryKey: ["alert"] });
    for (const listener of this.changed) listener(noun, ids);
  }
}

export const live = new Live();

/** Follows changes while somebody is signed in. */
export function useLive(wanted: boolean) {
  useEffect(() => {
    if (!wanted) return;
    live.open();
    return () => live.close();
  }, [wanted]);
}

export const useConnectionLost = () =>
  useSyncExternalStore(live.subscribe, () => live.lost);
