// What is asked of the API, by noun. Pages use these hooks and never a path of their own for reading.
import { keepPreviousData, QueryClient, useQuery } from "@tanstack/react-query";
import { get, post, Problem, type Params } from "./client";
import type { Policy, PolicyCheck, PolicyDiff, PolicyVersion, Rollout } from "./types";
import type { Alert, AlertDetail, ApiToken, Beginning, Host, Item, Model, ModelDetail, Overview, Page, Profile, Provider, Session, StoredEvent, Task, Totp } from "./types";

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

/** The live view tells of a host's health, not of each heartbeat: whether it is cut off comes with those. */
export const useHost = (id: string | undefined) =>
  useQuery({
    queryKey: ["host", id],
    queryFn: () => get<Host>(`/api/v1/hosts/${id}`),
    enabled: id !== undefined,
    refetchInterval: 5_000,
  });

export const useTask = (id: string) =>
  useQuery({ queryKey: ["task", id], queryFn: () => get<Task>(`/api/v1/tasks/${id}`) });

/** A few of a list, for a card. */
export const useSome = <T>(noun: "alerts" | "hosts" | "tasks" | "events", params: Params) =>
  useQuery({
    queryKey: [noun, "some", params],
    queryFn: () => get<Page<T>>(`/api/v1/${noun}`, params),
    placeholderData: keepPreviousData,
  });

export const useEvent = (number: string) =>
  useQuery({
    queryKey: ["event", number],
    queryFn: () => get<StoredEvent>(`/api/v1/events/${encodeURIComponent(number)}`),
    // It never changes.
    staleTime: Infinity,
  });

/** An item's state comes as an event of its host, which the live view does not tell. */
export const useItem = (host: string, item: string) =>
  useQuery({
    queryKey: ["item", host, item],
    queryFn: () => get<Item>(`/api/v1/quarantine/${encodeURIComponent(host)}/${encodeURIComponent(item)}`),
    refetchInterval: 2_000,
  });

export const useProviders = () =>
  useQuery({ queryKey: ["providers"], queryFn: () => get<Provider[]>("/api/v1/session/providers"), staleTime: Infinity });

/** Whether the manager still waits for its first sign-in; nobody is signed in. */
export const useBeginning = () =>
  useQuery({ queryKey: ["beginning"], queryFn: () => get<Beginning>("/api/v1/session/beginning"), staleTime: Infinity });

export const useTotp = () => useQuery({ queryKey: ["totp"], queryFn: () => get<Totp>("/api/v1/session/totp") });

export const useApiTokens = () =>
  useQuery({ queryKey: ["api-tokens"], queryFn: () => get<ApiToken[]>("/api/v1/api-tokens") });

/** The alert that a detection of malware belongs to: of that host, content and signature, at that time. */
export const useAlertOf = (event: StoredEvent) =>
  useQuery({
    queryKey: ["alert", "of", event.number],
    queryFn: async (): Promise<Alert | null> => {
      const params = { host: event.host_id, kind: "malware", text: event.event.sha256, from_ms: 0, limit: 50 };
      const { items } = await get<Page<Alert>>("/api/v1/alerts", params);
      const fits = (alert: Alert) =>
        alert.cause === event.event.sha256 && alert.first_ms <= event.time_ms && event.time_ms <= alert.last_ms &&
        alert.evidence?.signature?.name === event.event.signature?.name;
      return items.find(fits) ?? null;
    },
    enabled: event.kind === "malware" && Boolean(event.event.sha256),
  });

export const useProfile = (host: string, process: string, params: Params) =>
  useQuery({
    queryKey: ["process", host, process, params],
    queryFn: () => get<Profile>(`/api/v1/hosts/${host}/processes/${encodeURIComponent(process)}`, params),
    placeholderData: keepPreviousData,
    refetchInterval: (one) => (one.state.status === "error" ? false : 15_000),
  });

export const useModels = (params: Params, wanted = true) =>
  useQuery({
    queryKey: ["models", params],
    enabled: wanted,
    queryFn: () => get<Model[]>("/api/v1/models", params),
    placeholderData: keepPreviousData,
    refetchInterval: 15_000,
  });

export const useModel = (id: string) =>
  useQuery({ queryKey: ["models", id], queryFn: () => get<ModelDetail>(`/api/v1/models/${id}`), refetchInterval: 15_000 });

export const usePolicies = () => useQuery({ queryKey: ["policies"], queryFn: () => get<Policy[]>("/api/v1/policies"), refetchInterval: 15_000 });

export const usePolicy = (id: string) => useQuery({ queryKey: ["policy", id], queryFn: () => get<Policy>(`/api/v1/policies/${id}`) });

/** Newest first. */
export const useVersions = (id: string) =>
  useQuery({ queryKey: ["policy", id, "versions"], queryFn: () => get<Page<PolicyVersion>>(`/api/v1/policies/${id}/versions`, { limit: 100 }) });

/** With its document, which never changes; how its roll-out goes is told by others. */
export const useVersion = (id: string, version: number | undefined) =>
  useQuery({
    queryKey: ["policy-version", id, version],
    queryFn: () => get<PolicyVersion>(`/api/v1/policies/${id}/versions/${version}`),
    enabled: version !== undefined,
    staleTime: Infinity,
  });

export const useDiff = (id: string, from: number, to: number) =>
  useQuery({
    queryKey: ["policy-diff", id, from, to],
    queryFn: () => get<PolicyDiff>(`/api/v1/policies/${id}/diff`, { from, to }),
    staleTime: Infinity,
  });

/** Hosts tell what they run by themselves, which the live view says of hosts alone. */
export const useRollout = (id: string, wanted: boolean) =>
  useQuery({ queryKey: ["policy", id, "rollout"], queryFn: () => get<Rollout>(`/api/v1/policies/${id}/rollout`), enabled: wanted, refetchInterval: 2_000 });

/** What the manager says of a document that nobody has put yet. */
export const useCheck = (document: string, wanted: boolean) =>
  useQuery({
    queryKey: ["policy-check", document],
    queryFn: () => post<PolicyCheck>("/api/v1/policies/check", { document }),
    enabled: wanted,
    placeholderData: keepPreviousData,
    staleTime: Infinity,
    gcTime: 10_000,
  });

/** A list that is never long: all of it. */
export const useAll = <T>(noun: "users" | "enrollment-tokens" | "notifications") =>
  useQuery({ queryKey: [noun], queryFn: () => get<T[]>(`/api/v1/${noun}`), refetchInterval: 15_000 });
