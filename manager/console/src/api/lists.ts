// A long list of what the live view does not tell of: events and quarantined files. Pages as they are
// scrolled to; its first page is asked for again each few seconds, and at once when an alert or a task
// changes.
//
// INVARIANT: however much is loaded, keeping it current asks for one page.
import { useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo } from "react";
import { get, Problem, query, type Params } from "./client";
import { live } from "./live";
import { everything, type Rows } from "./rows";
import type { Page } from "./types";

const PAGE = 200;

interface Wanted {
  path: string;
  params: Params;
  /** How often its head is asked for again, ms; never, when nothing new can come. */
  every: number | null;
  /** Nothing is asked for yet. */
  off?: boolean;
}

/** A row: the thing, and what it is known by in the list. */
export type Row<T> = T & { id: string };

/**
 * The first page as it is now, then what was loaded below it: what left the list since is gone from it.
 * `more` says that something is below the first page.
 */
export function renewed<T extends { id: string }>(head: T[], more: boolean, loaded: T[]): T[] {
  const last = head.at(-1);
  if (!more || last === undefined) return head;
  const at = loaded.findIndex((row) => row.id === last.id);
  if (at >= 0) return [...head, ...loaded.slice(at + 1)];
  const end = loaded.at(-1);
  // The first page reaches further than what was loaded.
  if (end !== undefined && head.some((row) => row.id === end.id)) return head;
  const known = new Set(head.map((row) => row.id));
  return [...head, ...loaded.filter((row) => !known.has(row.id))];
}

export function useList<T>({ path, params, every, off = false }: Wanted, id: (thing: T) => string): Rows<Row<T>> {
  const client = useQueryClient();
  const asked = query(params);
  const rowsKey = useMemo(() => ["list", path, "rows", asked], [path, asked]);
  const headKey = useMemo(() => ["list", path, "head", asked], [path, asked]);
  const pages = useInfiniteQuery({
    queryKey: rowsKey,
    queryFn: ({ pageParam }) => get<Page<T>>(path, { ...params, limit: PAGE, cursor: pageParam }),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next ?? null,
    enabled: !off,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
    staleTime: every === null ? Infinity : 0,
    gcTime: 60_000,
    // A query that is wrong stays wrong.
    retry: (count, error) => count < 2 && (!(error instanceof Problem) || error.status === 0 || error.status >= 500),
  });
  const head = useQuery({
    queryKey: headKey,
    queryFn: () => get<Page<T>>(path, { ...params, limit: PAGE }),
    enabled: pages.isSuccess && every !== null,
    refetchInterval: every ?? false,
    staleTime: every ?? Infinity,
  });
  useEffect(() => {
    if (every === null) return;
    const remove = live.onChange((noun) => {
      if (noun !== "host") void client.invalidateQueries({ queryKey: headKey });
    });
    return () => void remove();
  }, [client, every, headKey]);
  const loaded = pages.data?.pages;
  const newest = head.data?.items;
  const further = head.data?.next;
  useEffect(() => {
    // More came than a page holds: what is between would be missing.
    const known = new Set(loaded?.flatMap((page) => page.items.map(id)));
    if (newest && newest.length >= PAGE && known.size > 0 && !newest.some((thing) => known.has(id(thing)))) {
      void client.resetQueries({ queryKey: rowsKey });
    }
  }, [client, id, loaded, newest, rowsKey]);

  const rows = useMemo(() => {
    const named = (things: T[]) => things.map((thing): Row<T> => ({ ...thing, id: id(thing) }));
    const all = named(loaded?.flatMap((page) => page.items) ?? []);
    return newest ? renewed(named(newest), Boolean(further), all) : all;
  }, [newest, further, loaded, id]);
  const { hasNextPage, isFetchingNextPage, fetchNextPage, refetch } = pages;
  return {
    rows,
    more: hasNextPage,
    loading: pages.isLoading,
    error: pages.error,
    next: () => {
      if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
    },
    retry: () => void refetch(),
    all: async (chosen) => chosen ?? (await everything<T>(path, params, id)).map((thing) => ({ ...thing, id: id(thing) })),
  };
}
