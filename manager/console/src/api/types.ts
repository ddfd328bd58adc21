// The API's things, from its own description, with the parts that it leaves open typed as the agent
// sends them. Everything in those parts may be missing: older agents send less.
import type { components } from "./schema";

type Schemas = components["schemas"];

export interface Page<T> {
  items: T[];
  next?: string | null;
}

export interface ProcessKey {
  pid: number;
  start_ns: number;
}

export interface Process {
  key?: ProcessKey;
  parent?: ProcessKey | null;
  exe?: string;
  comm?: string;
  args?: string[];
  user?: string;
  uid?: number;
  cwd?: string;
  container?: string | null;
  script?: string | null;
  sha256?: string | null;
}

/** How long a file had lain there when a scan found it. */
export interface Late {
  since_ms?: number;
  by?: string;
  lain_s?: number;
  rule?: { name?: string; since_ms?: number; newer_than_file?: boolean } | null;
}

export interface ScanFind {
  path?: string;
  signature?: string;
  sha256?: string;
  disposition?: string;
  quarantine_id?: string | null;
  late?: Late | null;
}

/** A scan as the history of its host has it: the fields of an event of the kind `scan`. */
export interface Scan {
  scan_id?: string;
  scope?: string;
  places?: string[];
  started_by?: string;
  schedule?: string | null;
  state?: string;
  note?: string | null;
  cpu_share?: number;
  asked_ms?: number;
  began_ms?: number | null;
  ended_ms?: number | null;
  running_ms?: number;
  progress?: { files?: number; bytes?: number; found?: number; failed?: number; skipped?: number };
  left_out?: { reason?: string; count?: number; examples?: string[] }[];
  finds?: ScanFind[];
  bundle?: string;
}

/** An event as its host sent it: `kind` says which of these are there. */
export interface Evidence {
  kind?: string;
  time_ms?: number;
  path?: string;
  title?: string;
  sha256?: string;
  sha1?: string;
  md5?: string;
  signature?: { name?: string; engine?: string };
  scan_type?: string;
  process?: Process | null;
  parents?: Process[];
  decision?: string | null;
  disposition?: string;
  quarantine_id?: string | null;
  reason?: string | null;
  evidence?: Record<string, string>;
  advice?: string;
  response?: string;
  responded?: string;
  action?: string;
  target?: string;
  late?: Late | null;
  file?: { size?: number; uid?: number; gid?: number; mode?: number; modified_ms?: number; changed_ms?: number };
}

export type Alert = Omit<Schemas["AlertView"], "evidence"> & { evidence: Evidence | null };
export type Note = Schemas["NoteView"];

export interface Action {
  action: string;
  [field: string]: unknown;
}

export type Task = Omit<Schemas["TaskView"], "action"> & { action: Action };

export interface AlertDetail {
  alert: Alert;
  notes: Note[];
  tasks: Task[];
}

export interface Reason {
  name: string;
  evidence: string;
}

export interface Capability {
  name: string;
  state: "ok" | "red" | "off";
  evidence: string;
  time_ms: number;
}

export interface Facts {
  host?: string;
  machine_id?: string;
  kernel?: string;
  system?: string;
  architecture?: string;
  addresses?: string[];
  version?: string;
}

export interface Heartbeat {
  time_ms?: number;
  capabilities?: Capability[];
  status?: {
    mode?: string;
    uptime_s?: number;
    isolated?: boolean;
    problems?: string[];
    file_systems?: { path?: string; state?: string }[];
    bundle?: { path?: string; digest?: string; loaded_ms?: number; hashes?: number; yara_rules?: number; refused?: string | null };
    quarantine?: { items?: number; bytes?: number };
    on_access?: Record<string, number>;
  };
  outbox?: { events?: number; oldest_s?: number; dropped?: number };
}

export type Host = Omit<Schemas["HostView"], "facts" | "reasons" | "heartbeat"> & {
  facts: Facts;
  reasons: Reason[];
  heartbeat?: Heartbeat | null;
};

export type StoredEvent = Omit<Schemas["EventView"], "event"> & { event: Evidence };
export type Item = Schemas["ItemView"];
export type Provider = Schemas["ProviderView"];
export type Beginning = Schemas["BeginningView"];
export type Totp = Schemas["TotpView"];
export type ApiToken = Schemas["ApiTokenView"];
export type Session = Schemas["SessionView"];
export type Overview = Schemas["OverviewView"];
export type EnrollmentToken = Schemas["TokenView"];
export type Profile = Schemas["ProfileView"];
export type ProfileNode = Schemas["NodeView"];
export type Deed = Schemas["DeedView"];
export type Model = Schemas["ModelView"];
export type ModelDetail = Schemas["ModelDetailView"];
export type User = Schemas["UserView"];
export type Channel = Schemas["ChannelView"];
export type ChannelBody = Schemas["ChannelBody"];
export type ChannelConfig = Schemas["ChannelConfig"];
export type Shell = Omit<Schemas["ShellView"], "action"> & { action: Action };
export type Policy = Schemas["PolicyView"];
export type PolicyVersion = Schemas["VersionView"];
export type Rollout = Schemas["RolloutView"];
export type PolicyCheck = Schemas["CheckView"];
export type PolicyDiff = Schemas["DiffView"];
export type RolloutHost = Schemas["RolloutHost"];
export type AuditRow = Schemas["AuditView"];

export const LEVELS = ["critical", "high", "medium", "low", "informational"] as const;
export const ALERT_KINDS = ["malware", "model", "tampering", "gap", "isolation", "health", "notification", "policy"] as const;
export const RESOLUTIONS = ["true_positive", "false_positive", "ignored", "allowed"] as const;
export const STAGES = ["queued", "delivered", "executed", "verified", "failed", "expired", "cancelled"] as const;
export const ITEM_STATES = ["held", "restored", "restored_and_allowed", "deleted"] as const;
export const EVENT_KINDS = [
  "malware", "model", "failure", "quarantine", "scan", "exec", "packet_socket", "activity", "network", "file", "proof",
  "isolation", "tampering", "agent_started", "agent_stopped", "protection_gap", "bundle", "coverage", "loss",
] as const;
