// What the pages of policies have in common: states, a document as it is read, a diff.
import { Fragment } from "react";
import { useTranslation } from "react-i18next";
import { useDiff } from "../../api/queries";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { visible } from "../../parts/visible";

export const ROLLOUTS = ["rolling", "paused", "done", "stopped", "superseded"] as const;

export function RolloutState({ state }: { state: string }) {
  const { t } = useTranslation();
  return <span className={`mark rollout-${state}`}>{t(`rolloutState.${state}`, { defaultValue: visible(state) })}</span>;
}

/** A document by its lines. */
export function Text({ text, label }: { text: string; label: string }) {
  const lines = text.replace(/\n$/, "").split("\n");
  return (
    <div className="document" tabIndex={0} role="region" aria-label={label}>
      {lines.map((line, index) => (
        <Fragment key={index}>
          <span className="line-number" aria-hidden="true">
            {index + 1}
          </span>
          <code>
            <Plain text={line} most={2000} mono />
          </code>
        </Fragment>
      ))}
    </div>
  );
}

/** What of it weakens hosts much, in the manager's words. */
export function Warnings({ list }: { list: string[] | null | undefined }) {
  const { t } = useTranslation();
  if (!list?.length) return null;
  return (
    <div className="effect danger" role="status">
      <b>{t("policies.weakens")}</b>
      <ul className="names">
        {list.map((one) => (
          <li key={one}>
            <Plain text={one} most={400} />
          </li>
        ))}
      </ul>
    </div>
  );
}

const kindOf = (line: string) => (line.startsWith("+") ? "added" : line.startsWith("-") ? "taken" : line.startsWith("@@") ? "place" : "");

/** What differs from one version to another; the sign before a line says which it is of. */
export function Diff({ id, from, to }: { id: string; from: number; to: number }) {
  const { t } = useTranslation();
  const diff = useDiff(id, from, to);
  if (diff.isPending) return <Waiting />;
  if (!diff.data) return <Failure error={diff.error} retry={() => void diff.refetch()} />;
  if (diff.data.diff === "") return <Empty title={t("policies.same")} hint={t("policies.sameHint")} />;
  return (
    <pre className="result diff" tabIndex={0} aria-label={t("policies.diff", { from, to })}>
      {diff.data.diff.replace(/\n$/, "").split("\n").slice(2).map((line, index) => (
        <span key={index} className={kindOf(line)}>
          <Plain text={line} most={2000} />
          {"\n"}
        </span>
      ))}
    </pre>
  );
}
