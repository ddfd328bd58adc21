// A list that came whole, as a table takes it.
import type { UseQueryResult } from "@tanstack/react-query";
import type { Rows } from "../api/rows";

export function rowsOf<T>(asked: UseQueryResult<T[]>, fits: (thing: T) => boolean = () => true): Rows<T> {
  const rows = (asked.data ?? []).filter(fits);
  return {
    rows,
    more: false,
    loading: asked.isPending,
    error: asked.error,
    next: () => undefined,
    retry: () => void asked.refetch(),
    all: (chosen) => Promise.resolve(chosen ?? rows),
  };
}
