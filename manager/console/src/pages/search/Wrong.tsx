// What is wrong with a query, and where.
import { useTranslation } from "react-i18next";
import type { Problem } from "../../api/client";
import { Plain } from "../../parts/Plain";
import { unitsOf } from "../../parts/terms";
import { visible } from "../../parts/visible";

export function Wrong({ query, problem }: { query: string; problem: Problem }) {
  const { t } = useTranslation();
  const at = unitsOf(query, problem.position ?? 0);
  // At least one place is marked, also behind the end.
  const mark = [...query.slice(at)][0] ?? " ";
  return (
    <div className="wrong" role="alert">
      <code>
        {visible(query.slice(0, at))}
        <mark>{visible(mark)}</mark>
        {visible(query.slice(at + mark.length))}
      </code>
      <p>
        <strong>{t("search.wrong")}</strong> <Plain text={problem.detail.replace(/^query: /, "")} most={400} />
      </p>
    </div>
  );
}
