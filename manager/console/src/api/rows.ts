// A long list: pages as they are scrolled to, and its head kept current.
//
// INVARIANT: however much is loaded, a change asks for one page and for the changed things alone.
import { useInfiniteQuery, useQuery, useQueryClient, type InfiniteData } from "@tanstack/react-query";
import { useEffect, useMemo } from "react";
import { get, query, type Params } from "./client";
import { live } from "./live";
import type { Page } from "./types";

/** Things of a page, and of the head. */
const PAGE = 200;
const HEAD = 100;
/** Most that an export asks for. */
const EXPORT = 200_000;
/** Changed things that are asked for one by one; beyond, the list is asked for again. */
const SINGLE = 20;

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
  all: () => Promise<T[]>;
}

/** What is new first, then what was there, each thing once and as it was told last. */
export function merge<T extends Thing>(head: T[], pages: T[]): T[] {
  const first = pages[0];
  if (head.length === 0 || !first) return pages.length ? pages : head;
  const fresh = new Map(head.map((thing) => [thing.id, thing]));
  const known = new Set(pages.map((thing) => thing.id));
  const unknown = head.filter((thing) => !known.has(thing.id));
  return [...unknown, ...pages.map((thing) => fresh.get(thing.id) ?? thing)];
}

export function useRows<T extends Thing>(noun: "alerts" | "tasks" | "hosts", params: Params, newestFirst: boolean): Rows<T> {
  const client = useQueryClient();
  const path = `/api/v1/${noun}`;
  const key = useMemo(() => [noun, "rows", query(params)], [noun, params]);
  const pages = useInfiniteQuery({
    queryKey: key,
    queryFn: ({ pageParam }) => get<Page<T>>(path, { ...params, limit: PAGE, cursor: pageParam }),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next ?? null,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
    refetchOnMount: false,
    staleTime: Infinity,
    gcTime: 60_000,
  });
  const head = useQuery({
    queryKey: [noun, "head", query(params)],
    queryFn: () => get<Page<T>>(path, { ...params, limit: HEAD }),
    enabled: pages.isSuccess && newestFirst,
    staleTime: Infinity,
  });

  useEffect(() => {
    const remove = live.onChange((changed, ids) => {
      if (`${changed}s` !== noun) return;
      if (newestFirst) void client.invalidateQueries({ queryKey: [noun, "head"] });
      if (ids.size === 0) {
        void client.resetQueries({ queryKey: key });
        return;
      }
      const data = client.getQueryData<InfiniteData<Page<T>>>(key);
      const loaded = new Set(data?.pages.flatMap((page) => page.items.map((thing) => thing.id)));
      const wanted = [...ids].filter((id) => loaded.has(id));
      if (wanted.length > SINGLE) {
        void client.resetQueries({ queryKey: key });
        return;
      }
      if (!newestFirst && wanted.length < ids.size && data && !data.pages.at(-1)?.next) {
        // Something new at the end of a list that is loaded whole.
        void client.invalidateQueries({ queryKey: key });
        return;
      }
      for (const id of wanted) void patch(id);
    });
    async function patch(id: string) {
      const got = await get<T | { alert: T }>(`${path}/${id}`);
      const thing = "alert" in (got as object) && noun === "alerts" ? (got as { alert: T }).alert : (got as T);
      client.setQueryData<InfiniteData<Page<T>>>(key, (data) => {
        if (!data) return data;
        const pages = data.pages.map((page) =>
          page.items.some((one) => one.id === id)
            ? { ...page, items: page.items.map((one) => (one.id === id ? thing : one)) }
            : page,
        );
        return { ...data, pages };
      });
    }
    return () => void remove();
  }, [client, key, newestFirst, noun, path]);

  const loaded = useMemo(() => pages.data?.pages.flatMap((page) => page.items) ?? [], [pages.data]);
  const rows = useMemo(() => merge(newestFirst ? (head.data?.items ?? []) : [], loaded), [head.data, loaded, newestFirst]);
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
    all: async () => {
      const found: T[] = [];
      let cursor: string | null | undefined = null;
      do {
        const page: Page<T> = await get<Page<T>>(path, { ...params, limit: 500, cursor });
        found.push(...page.items);
        cursor = page.next;
      } while (cursor && found.length < EXPORT);
      return found;
    },
  };
}
