// Requests to the manager. A refusal is a `Problem`, whose words come from the manager.
//
// The sign-in is a cookie that no script can read; that another site cannot send requests by it is
// the manager's care (SameSite, Sec-Fetch-Site).
import { v4 } from "./id";

export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
    readonly secondFactor = false,
    readonly retryAfter: number | null = null,
    /** Character of the query that is wrong, from 0. */
    readonly position: number | null = null,
  ) {
    super(detail);
  }
}

export type Params = Record<string, string | number | null | undefined>;

export function query(params: Params): string {
  const pairs = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return pairs.length ? `?${new URLSearchParams(pairs.map(([name, value]) => [name, String(value)]))}` : "";
}

async function problem(response: Response): Promise<Problem> {
  const after = Number(response.headers.get("retry-after"));
  const retry = Number.isFinite(after) && after > 0 ? after : null;
  try {
    const body = (await response.json()) as { detail?: unknown; second_factor?: unknown; position?: unknown };
    const position = typeof body.position === "number" ? body.position : null;
    return new Problem(response.status, String(body.detail ?? response.statusText), body.second_factor === true, retry, position);
  } catch {
    return new Problem(response.status, response.statusText, false, retry);
  }
}

/** Told when a request shows that nobody is signed in any more. */
export const signedOut = new EventTarget();

async function answer(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Response> {
  const init: RequestInit = { method, headers: { ...headers }, credentials: "same-origin" };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...headers, "content-type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new Problem(0, "");
  }
  if (!response.ok) {
    const failed = await problem(response);
    if (failed.status === 401 && !path.startsWith("/api/v1/session")) signedOut.dispatchEvent(new Event("signedout"));
    throw failed;
  }
  return response;
}

async function send<T>(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<T> {
  const response = await answer(method, path, body, headers);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

/** A file as text; nothing where it has more bytes than that. */
export async function getText(path: string, most: number): Promise<string | null> {
  const response = await answer("GET", path);
  if (Number(response.headers.get("content-length") ?? 0) > most) {
    await response.body?.cancel();
    return null;
  }
  return response.text();
}

export const get = <T>(path: string, params: Params = {}) => send<T>("GET", path + query(params));
export const post = <T>(path: string, body: unknown) => send<T>("POST", path, body);
export const patch = <T>(path: string, body: unknown) => send<T>("PATCH", path, body);
export const put = <T>(path: string, body: unknown) => send<T>("PUT", path, body);
export const remove = <T>(path: string) => send<T>("DELETE", path);

/** Files something once, even when the answer is lost and it is sent again. */
export const postOnce = <T>(path: string, body: unknown) => send<T>("POST", path, body, { "idempotency-key": v4() });
