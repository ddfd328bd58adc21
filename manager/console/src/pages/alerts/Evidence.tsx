// What shows that it happened: the command, the file, the process and who started it.
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import type { Evidence as Shown, Late, Process } from "../../api/types";
import { Facts } from "../../parts/Facts";
import { Copy } from "../../parts/Copy";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { commandLine, visible } from "../../parts/visible";

/** The command with what the model looked at marked in it. */
function Command({ process, evidence }: { process: Process; evidence?: Record<string, string> }) {
  const line = commandLine(process.args ?? []);
  if (!line) return null;
  const marks = Object.values(evidence ?? {}).filter((value) => value.length > 1 && value.length < 200 && value !== line && line.includes(value));
  const mark = marks.sort((a, b) => b.length - a.length)[0];
  const at = mark ? line.indexOf(mark) : -1;
  return (
    <div className="command">
      <span className="prompt" aria-hidden="true">
        {process.uid === 0 ? "#" : "$"}
      </span>
      <code>
        {mark && at >= 0 ? (
          <>
            <Plain text={line.slice(0, at)} most={2000} />
            <mark>
              <Plain text={mark} />
            </mark>
            <Plain text={line.slice(at + mark.length)} most={1000} />
          </>
        ) : (
          <Plain text={line} most={1000} />
        )}
      </code>
      <Copy text={line} />
    </div>
  );
}

function Hash({ text }: { text: string }) {
  return (
    <span className="copied">
      <Plain text={text} mono most={128} />
      <Copy text={text} />
    </span>
  );
}

export function Evidence({ evidence, host }: { evidence: Shown; host?: string }) {
  const { t } = useTranslation();
  const { process, parents = [], file } = evidence;
  const text = (value: string | null | undefined) => (value ? <Plain text={value} most={300} /> : null);
  return (
    <>
      {process && <Command process={process} {...(evidence.evidence ? { evidence: evidence.evidence } : {})} />}
      <Facts
        rows={[
          [t("evidence.path"), evidence.path ? <Hash text={evidence.path} /> : null],
          [t("evidence.signature"), text(evidence.signature?.name)],
          [t("evidence.disposition"), evidence.disposition ? t(`done.${evidence.disposition}`, { defaultValue: visible(evidence.disposition) }) : null],
          [t("evidence.quarantine"), evidence.quarantine_id && host ? <Link to={`/quarantine/${host}/${evidence.quarantine_id}`}>{t("evidence.item")}</Link> : null],
          [t("evidence.scan"), evidence.scan_type ? t(`scan.${evidence.scan_type}`, { defaultValue: visible(evidence.scan_type) }) : null],
          [t("evidence.reason"), text(evidence.reason)],
          [t("evidence.late"), evidence.late?.lain_s !== undefined ? <Lain late={evidence.late} /> : null],
          [t("evidence.responded"), text(evidence.responded)],
          [t("evidence.action"), evidence.target ? text(`${evidence.action ?? ""} ${evidence.target}`) : null],
          [t("evidence.time"), evidence.time_ms ? <Time ms={evidence.time_ms} whole /> : null],
          [t("evidence.sha256"), evidence.sha256 ? <Hash text={evidence.sha256} /> : null],
          [t("evidence.md5"), evidence.md5 ? <Hash text={evidence.md5} /> : null],
          [t("evidence.size"), file?.size !== undefined ? t("bytes", { count: file.size }) : null],
          [t("evidence.owner"), file?.uid !== undefined ? `${file.uid}:${file.gid} ${((file.mode ?? 0) & 0o7777).toString(8)}` : null],
          [t("evidence.program"), text(process?.exe)],
          [t("evidence.script"), text(process?.script)],
          [t("evidence.user"), process ? text(`${process.user ?? ""} (${process.uid ?? ""})`) : null],
          [t("evidence.pid"), process?.key?.pid],
          [t("evidence.cwd"), text(process?.cwd)],
          [t("evidence.container"), text(process?.container)],
        ]}
      />
      {evidence.evidence && Object.keys(evidence.evidence).length > 0 && (
        <details>
          <summary>{t("evidence.fields")}</summary>
          <Facts rows={Object.entries(evidence.evidence).map(([name, value]) => [name, <Plain key={name} text={value} most={300} mono />])} />
        </details>
      )}
      {process && parents.length > 0 && (
        <>
          <h3>{t("evidence.tree")}</h3>
          <ol className="tree">
            {[...parents].reverse().map((parent, index) => (
              <Line key={index} process={parent} depth={index} />
            ))}
            <Line process={process} depth={parents.length} last />
          </ol>
        </>
      )}
    </>
  );
}

/** How long a file had lain there, and whether the rules could have found it before. */
export function Lain({ late }: { late: Late }) {
  const { t } = useTranslation();
  const days = Math.floor((late.lain_s ?? 0) / 86_400);
  const newer = late.rule?.newer_than_file;
  return (
    <>
      {days > 0 ? t("evidence.days", { count: days }) : t("evidence.today")} <Time ms={late.since_ms} />
      {newer !== undefined && ` · ${t(newer ? "evidence.ruleNewer" : "evidence.ruleOlder")}`}
    </>
  );
}

/** Deeper ones are not moved further to the right. */
const DEEPEST = 10;

function Line({ process, depth, last = false }: { process: Process; depth: number; last?: boolean }) {
  const line = process.args?.length ? commandLine(process.args) : (process.exe ?? process.comm ?? "");
  return (
    <li className={last ? "last" : ""} style={{ paddingInlineStart: `${Math.min(depth, DEEPEST) * 14}px` }}>
      <span className="number">{process.key?.pid}</span> <Plain text={line} most={160} mono />{" "}
      <span className="dim">
        <Plain text={process.user ?? ""} most={40} />
      </span>
    </li>
  );
}
