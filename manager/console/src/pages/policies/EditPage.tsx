// A new version of a policy: its document as text and as forms, both of the same text; what the manager
// says of it, and why it is put.
import { Button, SegmentedControl, Textarea } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { useBeforeUnload, useNavigate, useParams } from "react-router";
import { post } from "../../api/client";
import { queries, useCheck, usePolicy, useVersion } from "../../api/queries";
import type { Policy, PolicyCheck } from "../../api/types";
import { useParam } from "../../parts/address";
import { Card } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { Empty, Failure, useReason, Waiting } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { visible } from "../../parts/visible";
import { useRole } from "../../shell/session";
import { changed, readDocument, type Document } from "./document";
import { General } from "./General";
import { Models } from "./Models";
import { Warnings } from "./parts";
import { Speed } from "./PolicyPage";
import { Schedules } from "./Schedules";

/** Bytes that the manager takes. */
const MOST = 64 * 1024;
const PARTS = ["schedules", "models", "general"] as const;

export interface Editor {
  text: string;
  document: Document;
  /** Writes a change into the text. */
  change: (change: (document: Document) => void) => void;
  /** Takes another text. */
  set: (text: string | null) => void;
}

export default function EditPage() {
  const { id = "" } = useParams();
  const { t } = useTranslation();
  const { admin } = useRole();
  const policy = usePolicy(id);
  const version = useVersion(id, policy.data?.newest?.version);
  if (!admin) return <Empty title={t("admin.notYou")} hint={t("admin.notYouHint")} />;
  if (policy.isPending) return <Waiting />;
  if (!policy.data) return <Failure error={policy.error} retry={() => void policy.refetch()} />;
  if (!policy.data.newest) return <Edit policy={policy.data} before="" base={0} />;
  if (version.isPending) return <Waiting />;
  if (!version.data) return <Failure error={version.error} retry={() => void version.refetch()} />;
  return <Edit policy={policy.data} before={version.data.document ?? ""} base={version.data.version} />;
}

function Edit({ policy, before: newest, base: number }: { policy: Policy; before: string; base: number }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const explain = useReason();
  // What is edited is what was there at first, whatever comes meanwhile.
  const [{ before, base }] = useState({ before: newest, base: number });
  const [text, setText] = useState(before);
  const [settled] = useDebouncedValue(text, 300);
  const [reason, setReason] = useState("");
  const [speed, setSpeed] = useState("staged");
  const [part, setPart] = useParam("part", PARTS[0]);
  const [busy, setBusy] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const document = useMemo(() => readDocument(text), [text]);
  const long = new TextEncoder().encode(settled).length > MOST;
  const check = useCheck(settled, !long);
  const said = settled === text && !check.isPlaceholderData ? check.data : undefined;
  const dirty = text !== before;
  useBeforeUnload(useCallback((event: BeforeUnloadEvent) => dirty && event.preventDefault(), [dirty]));
  const editor: Editor | null = document && {
    text,
    document,
    change: (change) => editor?.set(changed(text, change)),
    set: (next) => {
      if (next === null) notifications.show({ color: "red", message: t("policies.byHand") });
      else setText(next);
    },
  };
  const save = async () => {
    setBusy(true);
    try {
      await post(`/api/v1/policies/${policy.id}/versions`, { document: text, at_once: speed === "once", reason: reason.trim() });
      await queries.invalidateQueries({ queryKey: ["policy", policy.id] });
      await queries.invalidateQueries({ queryKey: ["policies"] });
      await navigate(`/policies/${policy.id}`);
    } catch (error) {
      notifications.show({ color: "red", autoClose: false, title: t("problem.title"), message: explain(error) });
    } finally {
      setBusy(false);
    }
  };
  const go = (line: number, column: number) => {
    const at = text.split("\n").slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0) + column - 1;
    field.current?.focus();
    field.current?.setSelectionRange(at, at);
  };
  return (
    <div className="page">
      <Head to={`/policies/${policy.id}`} back={<Plain text={policy.name} most={80} />} title={t(base ? "policies.edit" : "policies.write")}>
        <p className="dim">{t("policies.editLead")}</p>
      </Head>
      {(policy.newest?.version ?? 0) !== base && (
        <div className="banner lost" role="status">
          {t("policies.newerCame", { version: policy.newest?.version ?? 0 })}
        </div>
      )}
      <div className="two">
        <div className="column">
          <Card title={t("policies.forms")}
            side={<SegmentedControl size="xs" value={part} onChange={setPart} aria-label={t("policies.forms")} data={PARTS.map((value) => ({ value, label: t(`policies.parts.${value}`) }))} />}>
            {!editor ? (
              <Empty title={t("policies.noToml")} hint={t("policies.noTomlHint")} />
            ) : part === "models" ? (
              <Models editor={editor} />
            ) : part === "general" ? (
              <General editor={editor} />
            ) : (
              <Schedules editor={editor} />
            )}
          </Card>
        </div>
        <div className="column">
          <Card title={t("policies.document")}>
            <Source text={text} set={setText} field={field} wrong={said?.line ?? null} />
            <Unseen text={text} />
            <Said check={said} long={long} failed={check.error} go={go} />
          </Card>
          <Card title={t("policies.put")}>
            <form
              className="padded stack"
              onSubmit={(event) => {
                event.preventDefault();
                void save();
              }}
            >
              <Speed value={speed} set={setSpeed} policy={policy} />
              <Textarea label={t("order.reason")} description={t("policies.reasonHint")} value={reason} required maxLength={500} autosize minRows={2}
                onChange={(event) => setReason(event.currentTarget.value)} />
              <div className="actions">
                <Button type="submit" loading={busy} disabled={!dirty || !said || Boolean(said.error) || reason.trim() === ""}>
                  {t("policies.putSend", { version: base + 1 })}
                </Button>
                <Button variant="default" disabled={!dirty} onClick={() => setText(before)}>
                  {t("policies.undo")}
                </Button>
              </div>
              {!dirty && <p className="dim">{t("policies.unchanged")}</p>}
            </form>
          </Card>
        </div>
      </div>
    </div>
  );
}

interface SourceProps {
  text: string;
  set: (text: string) => void;
  field: React.RefObject<HTMLTextAreaElement | null>;
  wrong: number | null;
}

function Source({ text, set, field, wrong }: SourceProps) {
  const { t } = useTranslation();
  const gutter = useRef<HTMLPreElement>(null);
  const count = text.split("\n").length;
  // What is wrong is seen even in a long document.
  useEffect(() => {
    if (gutter.current && field.current) gutter.current.scrollTop = field.current.scrollTop;
  }, [text, field]);
  return (
    <div className="source">
      <pre ref={gutter} className="gutter" aria-hidden="true">
        {Array.from({ length: count }, (_, index) => (
          <span key={index} className={index + 1 === wrong ? "wrong-line" : ""}>
            {index + 1}
          </span>
        ))}
      </pre>
      <textarea ref={field} value={text} wrap="off" spellCheck={false} autoComplete="off" autoCapitalize="off" aria-label={t("policies.document")}
        aria-invalid={wrong !== null} onChange={(event) => set(event.currentTarget.value)}
        onScroll={(event) => {
          if (gutter.current) gutter.current.scrollTop = event.currentTarget.scrollTop;
        }} />
    </div>
  );
}

/** Lines that say something else than they seem to. */
function Unseen({ text }: { text: string }) {
  const { t } = useTranslation();
  const lines = text.split("\n").flatMap((line, index) => (visible(line.replaceAll("\t", "")) === line.replaceAll("\t", "") ? [] : [index + 1]));
  if (lines.length === 0) return null;
  return (
    <p className="padded unseen-note" role="status">
      {t("policies.odd", { lines: lines.slice(0, 20).join(", ") })}
    </p>
  );
}

interface SaidProps {
  check: PolicyCheck | undefined;
  long: boolean;
  failed: unknown;
  go: (line: number, column: number) => void;
}

function Said({ check, long, failed, go }: SaidProps) {
  const { t } = useTranslation();
  if (long) return <p className="wrong" role="alert">{t("policies.tooLong")}</p>;
  if (failed) return <Failure error={failed} />;
  if (!check) return <p className="dim padded" role="status">{t("policies.checking")}</p>;
  const { error, line, column } = check;
  if (!error) {
    return (
      <>
        <p className="padded good" role="status">{t("policies.fine")}</p>
        <Warnings list={check.warnings} />
      </>
    );
  }
  return (
    <div className="wrong" role="alert">
      {line && (
        <Button size="compact-xs" variant="default" onClick={() => go(line, column ?? 1)}>
          {t("policies.line", { line })}
        </Button>
      )}
      <p>
        <Plain text={error} most={1000} mono lines />
      </p>
    </div>
  );
}
