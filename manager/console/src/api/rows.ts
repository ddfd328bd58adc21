// A long list: pages as they are scrolled to, its head kept current, and what is on the screen.
//
// INVARIANT: however much is loaded and changes, it is asked for what is new and for what is on the
// screen alone; what has changed elsewhere is asked for when it comes there.
import { useInfiniteQuery, useQuery, useQueryClient, type InfiniteData } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useRef } from "react";
import { get, query, type Params } from "./client";
import { live } from "./live";
import type { Page } from "./types";

/** Things of a page, and of the head. */
const PAGE = 200;
const HEAD = 100;
/** Most that an export asks for. */
const EXPORT = 200_000;
/** Changed things that are asked for one by one; beyond, their page is asked for again. */
const SINGLE = 20;
/** Changed things that are noted before those that the list does not hold are forgotten. */
const CHANGED_MOST = 10_000;
/** Between two times that a list which is loaded whole is asked for again for something new in it, ms. */
const WHOLE = 10_000;

interface Thing {
  id: string;
}

export interface Rows<T> {
  rows: T[];
  more: boolean;
  loading: boolean;
  error: Error | null;
  next: () => void;
  retry: () => void;
  /** All that match, or the chosen ones, each with all that the API has of it. */
  all: (chosen?: T[]) => Promise<T[]>;
  /** These are on the screen. */
  seen?: (things: T[]) => void;
}

/** What is new first, then what was there, each thing once and as it was told last. */
export function merge<T extends Thing>(head: T[], pages: T[]): T[] {
  const last = head.at(-1);
  if (last === undefined || pages.length === 0) return pages.length ? pages : head;
  // Below the head's last thing nothing of it comes again.
  const end = pages.findIndex((thing) => thing.id === last.id) + 1 || pages.length;
  const places = new Map(head.map((thing, index) => [thing.id, index]));
  const merged: T[] = [];
  // What left the list stays before what it stood before.
  let left: T[] = [];
  let at = 0;
  for (const thing of pages.slice(0, end)) {
    const place = places.get(thing.id);
    if (place === undefined || place < at) {
      if (place === undefined) left.push(thing);
      continue;
    }
    merged.push(...head.slice(at, place), ...left, ...head.slice(place, place + 1));
    left = [];
    at = place + 1;
  }
  return [...merged, ...head.slice(at), ...left, ...pages.slice(end)];
}

/** Texts that many things share, each kept once: what is kept is gone through when memory is swept. */
const shared = new Map<string, unknown>();
const SHARED = ["host", "host_id", "model", "group", "filed_by", "attack"];
/** Texts that are kept so; beyond, they are forgotten and found anew. */
const SHARED_MOST = 50_000;

/** As a list keeps it: an alert's evidence is longer than all the rest, and is on its page. */
function light<T extends Thing>(thing: T): T {
  const kept = thing as Record<string, unknown>;
  if ("evidence" in kept) kept.evidence = null;
  for (const name of SHARED) if (name in kept) kept[name] = once(kept[name]);
  return thing;
}

function once(value: unknown): unknown {
  const key = typeof value === "string" ? value : JSON.stringify(value);
  if (shared.size > SHARED_MOST) shared.clear();
  const known = shared.get(key);
  if (known !== undefined && typeof known === typeof value) return known;
  shared.set(key, value);
  return value;
}

const page = async <T extends Thing>(path: string, params: Params): Promise<Page<T>> => {
  const got = await get<Page<T>>(path, params);
  return { ...got, items: got.items.map(light) };
};

/** Page after page, to the end or until the chosen ones are there. */
export async function everything<T>(path: string, params: Params, id: (thing: T) => string, chosen?: Set<string>): Promise<T[]> {
  const found: T[] = [];
  let looked = 0;
  let cursor: string | null | undefined = null;
  do {
    const got: Page<T> = await get<Page<T>>(path, { ...params, limit: 500, cursor });
    looked += got.items.length;
    found.push(...(chosen ? got.items.filter((thing) => chosen.has(id(thing))) : got.items));
    cursor = got.next;
  } while (cursor && looked < EXPORT && found.length !== chosen?.size);
  return found;
}

type Pages<T> = InfiniteData<Page<T>>;

export function useRows<T extends Thing>(noun: "alerts" | "tasks" | "hosts", params: Params, newestFirst: boolean): Rows<T> {
  const client = useQueryClient();
  const path = `/api/v1/${noun}`;
  const key = useMemo(() => [noun, "rows", query(params)], [noun, params]);
  const pages = useInfiniteQuery({
    queryKey: key,
    queryFn: ({ pageParam }) => page<T>(path, { ...params, limit: PAGE, cursor: pageParam }),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next ?? null,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
    refetchOnMount: false,
    staleTime: Infinity,
    gcTime: 60_000,
    // To compare all that is loaded takes longer than to draw what is on the screen.
    structuralSharing: false,
  });
  const head = useQuery({
    queryKey: [noun, "head", query(params)],
    queryFn: () => page<T>(path, { ...params, limit: HEAD }),
    enabled: pages.isSuccess && newestFirst,
    staleTime: Infinity,
  });

  const rows = useMemo(() => pages.data?.pages.flatMap((one) => one.items) ?? [], [pages.data]);
  const newest = head.data?.items;
  const told = useRef<T[] | undefined>(undefined);
  // Again after each page that came: it knows nothing of what was told while it was asked for.
  useEffect(() => {
    const [first, ...rest] = pages.data?.pages ?? [];
    if (!newest?.length || !pages.data || !first) return;
    const known = new Map(first.items.map((thing) => [thing.id, thing]));
    // More came than the head holds: what is between would be missing.
    if (newest.length >= HEAD && !newest.some((thing) => known.has(thing.id))) {
      void client.resetQueries({ queryKey: key });
      return;
    }
    // What the same head said before may have changed since.
    const items = merge(newest === told.current ? newest.map((thing) => known.get(thing.id) ?? thing) : newest, first.items);
    told.current = newest;
    if (items.length === first.items.length && items.every((thing, index) => thing === first.items[index])) return;
    client.setQueryData<Pages<T>>(key, { ...pages.data, pages: [{ ...first, items }, ...rest] });
  }, [client, key, newest, pages.data]);

  const screen = useRef<T[]>([]);
  const changed = useRef(new Set<string>());
  const asking = useRef(false);
  /** Asks for what is on the screen and has changed, until nothing is left. */
  const renew = useCallback(async () => {
    if (asking.current) return;
    asking.current = true;
    for (;;) {
      const wanted = screen.current.map((thing) => thing.id).filter((id) => changed.current.delete(id));
      if (wanted.length === 0) break;
      const fresh = new Map<string, T>();
      const take = (things: T[]) => things.forEach((thing) => fresh.set(thing.id, thing));
      try {
        if (wanted.length > SINGLE) {
          const data = client.getQueryData<Pages<T>>(key);
          const ids = new Set(wanted);
          const holds = (one: Page<T>) => one.items.some((thing) => ids.has(thing.id));
          const cursors = data?.pages.flatMap((one, index) => (holds(one) ? [data.pageParams[index] as string | null] : [])) ?? [];
          for (const cursor of cursors) take((await page<T>(path, { ...params, limit: PAGE, cursor })).items);
        }
        // Also what left the list since.
        take(await Promise.all(wanted.filter((id) => !fresh.has(id)).map((id) => single<T>(path, id))));
      } catch {
        // It is gone, or the manager is away; when that is back everything is asked for again.
        continue;
      }
      if (client.getQueryState(key)?.fetchStatus === "fetching") {
        // A page that is on its way would take it back: once more when it is there.
        for (const id of wanted) changed.current.add(id);
        break;
      }
      client.setQueryData<Pages<T>>(key, (data) => data && { ...data, pages: data.pages.map((one) => renewed(one, fresh)) });
    }
    asking.current = false;
  }, [client, key, params, path]);
  const seen = useCallback(
    (things: T[]) => {
      screen.current = things;
      void renew();
    },
    [renew],
  );

  const asked = useRef(0);
  useEffect(() => {
    changed.current.clear();
    const remove = live.onChange((noted, ids) => {
      if (`${noted}s` !== noun) return;
      if (newestFirst) void client.invalidateQueries({ queryKey: [noun, "head"] });
      if (ids.size === 0) {
        void client.resetQueries({ queryKey: key });
        return;
      }
      for (const id of ids) changed.current.add(id);
      const data = client.getQueryData<Pages<T>>(key);
      if (changed.current.size > CHANGED_MOST) {
        const loaded = new Set((data?.pages ?? []).flatMap((one) => one.items.map((thing) => thing.id)));
        for (const id of changed.current) if (!loaded.has(id)) changed.current.delete(id);
      }
      if (!newestFirst && data && !data.pages.at(-1)?.next) {
        const unknown = new Set(ids);
        for (const one of data.pages) for (const { id } of one.items) unknown.delete(id);
        // Something new in a list that is loaded whole.
        const now = performance.now();
        if (unknown.size > 0 && (data.pages.length === 1 || now - asked.current > WHOLE)) {
          asked.current = now;
          void client.invalidateQueries({ queryKey: key });
          return;
        }
      }
      void renew();
    });
    return () => void remove();
  }, [client, key, newestFirst, noun, renew]);

  const { hasNextPage, isFetchingNextPage, fetchNextPage, refetch } = pages;
  return {
    rows,
    more: hasNextPage,
    loading: pages.isPending,
    error: pages.error,
    next: () => {
      if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
    },
    retry: () => void refetch(),
    all: (chosen) => everything<T>(path, params, (thing) => thing.id, chosen && new Set(chosen.map((thing) => thing.id))),
    seen,
  };
}

/** One thing, as its list has it. */
async function single<T extends Thing>(path: string, id: string): Promise<T> {
  const got = await get<T | { alert: T }>(`${path}/${id}`);
  return light("alert" in (got as object) && path.endsWith("/alerts") ? (got as { alert: T }).alert : (got as T));
}

function renewed<T extends Thing>(one: Page<T>, fresh: Map<string, T>): Page<T> {
  if (!one.items.some((thing) => fresh.has(thing.id))) return one;
  return { ...one, items: one.items.map((thing) => fresh.get(thing.id) ?? thing) };
}
