// Every event of all hosts, by the query language. What is asked for stands in the address.
import { Button } from "@mantine/core";
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { useNavigate } from "react-router";
import { Problem } from "../../api/client";
import { useList } from "../../api/lists";
import type { StoredEvent } from "../../api/types";
import { useParam } from "../../parts/address";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { Period, usePeriod } from "../../parts/Period";
import { QueryField } from "./QueryField";
import { Results } from "./Results";
import { Saved } from "./Saved";
import { Wrong } from "./Wrong";

const USUAL = "24h";
const EXAMPLES = ['kind:exec cmdline:"tcpdump"', "kind:malware", "kind:network -ip:127.0.0.1", "kind:model level:high", "kind:exec user:root (exe:bash OR exe:sh)"];
const byNumber = (event: StoredEvent) => event.number;

export default function SearchPage() {
  const { t } = useTranslation();
  const [query, setQuery] = useParam("query");
  const [period, span] = usePeriod(USUAL);
  const navigate = useNavigate();
  const params = useMemo(() => ({ query, from_ms: span.from_ms, until_ms: span.until_ms }), [query, span]);
  const rows = useList<StoredEvent>({ path: "/api/v1/events", params, every: null, off: query.trim() === "" }, byNumber);
  const wrong = rows.error instanceof Problem && rows.error.position !== null ? rows.error : null;
  return (
    <div className="page full">
      <header className="head">
        <h1>{t("menu.search")}</h1>
        <div className="actions">
          <Saved query={query} period={period} open={(one) => void navigate(`/search?${new URLSearchParams({ query: one.query, period: one.period })}`)} />
          <Period usual={USUAL} />
        </div>
      </header>
      <QueryField query={query} run={(next) => (next === query ? rows.retry() : setQuery(next))} wrongAt={wrong?.position ?? null} />
      {wrong && <Wrong query={query} problem={wrong} />}
      {query.trim() === "" ? (
        <Empty title={t("search.start")} hint={t("search.startHint")}>
          <ul className="examples">
            {EXAMPLES.map((example) => (
              <li key={example}>
                <Button variant="default" size="compact-sm" ff="monospace" onClick={() => setQuery(example)}>
                  {example}
                </Button>
              </li>
            ))}
          </ul>
        </Empty>
      ) : rows.loading ? (
        <Waiting />
      ) : wrong ? null : rows.error && rows.rows.length === 0 ? (
        <Failure error={rows.error} retry={rows.retry} />
      ) : rows.rows.length === 0 ? (
        <Empty title={t("search.none")} hint={t("search.noneHint")} />
      ) : (
        <Results key={query} rows={rows} query={query} search={setQuery} />
      )}
    </div>
  );
}
