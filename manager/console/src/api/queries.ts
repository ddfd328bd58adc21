// What is asked of the API, by noun. Pages use these hooks and never a path of their own for reading.
import { keepPreviousData, QueryClient, useQuery } from "@tanstack/react-query";
import { get, Problem, type Params } from "./client";
import type { AlertDetail, Host, Model, ModelDetail, Overview, Page, Profile, Session, StoredEvent, Task } from "./types";

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      refetchOnWindowFocus: true,
      retry: (count, error) => count < 2 && (!(error instanceof Problem) || error.status === 0 || error.status >= 500),
    },
  },
});

export const useSession = () =>
  useQuery({
    queryKey: ["session"],
    queryFn: async (): Promise<Session | null> => {
      try {
        return await get<Session>("/api/v1/session");
      } catch (error) {
        if (error instanceof Problem && error.status === 401) return null;
        throw error;
      }
    },
    staleTime: Infinity,
    // A manager that is away when the page begins is asked until it is there.
    refetchInterval: (one) => (one.state.status === "error" ? 3_000 : false),
  });

export const useOverview = (params: Params) =>
  useQuery({
    queryKey: ["overview", params],
    queryFn: () => get<Overview>("/api/v1/overview", params),
    placeholderData: keepPreviousData,
    refetchInterval: 15_000,
  });

export const useAlert = (id: string) =>
  useQuery({ queryKey: ["alert", id], queryFn: () => get<AlertDetail>(`/api/v1/alerts/${id}`) });

export const useAlertEvents = (id: string) =>
  useQuery({
    queryKey: ["alert", id, "events"],
    queryFn: () => get<Page<StoredEvent>>(`/api/v1/alerts/${id}/events`, { limit: 100 }),
  });

export const useHost = (id: string | undefined) =>
  useQuery({ queryKey: ["host", id], queryFn: () => get<Host>(`/api/v1/hosts/${id}`), enabled: id !== undefined });

export const useTask = (id: string) =>
  useQuery({ queryKey: ["task", id], queryFn: () => get<Task>(`/api/v1/tasks/${id}`) });

/** A few of a list, for a card. */
export const useSome = <T>(noun: "alerts" | "hosts" | "tasks" | "events", params: Params) =>
  useQuery({
    queryKey: [noun, "some", params],
    queryFn: () => get<Page<T>>(`/api/v1/${noun}`, params),
    placeholderData: keepPreviousData,
  });

export const useProfile = (host: string, process: string, params: Params) =>
  useQuery({
    queryKey: ["process", host, process, params],
    queryFn: () => get<Profile>(`/api/v1/hosts/${host}/processes/${encodeURIComponent(process)}`, params),
    placeholderData: keepPreviousData,
    refetchInterval: (one) => (one.state.status === "error" ? false : 15_000),
  });

export const useModels = (params: Params) =>
  useQuery({
    queryKey: ["models", params],
    queryFn: () => get<Model[]>("/api/v1/models", params),
    placeholderData: keepPreviousData,
    refetchInterval: 15_000,
  });

export const useModel = (id: string) =>
  useQuery({ queryKey: ["models", id], queryFn: () => get<ModelDetail>(`/api/v1/models/${id}`), refetchInterval: 15_000 });

/** A list that is never long: all of it. */
export const useAll = <T>(noun: "users" | "enrollment-tokens" | "notifications") =>
  useQuery({ queryKey: [noun], queryFn: () => get<T[]>(`/api/v1/${noun}`), refetchInterval: 15_000 });
