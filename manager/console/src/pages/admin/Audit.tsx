// The audit log: who did what, newest first.
import { Modal } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { get } from "../../api/client";
import type { AuditRow, Page } from "../../api/types";
import type { Rows } from "../../api/rows";
import { useParam } from "../../parts/address";
import { Facts } from "../../parts/Facts";
import { Find } from "../../parts/Filter";
import { Empty } from "../../parts/Notice";
import { Period, usePeriod } from "../../parts/Period";
import { Plain } from "../../parts/Plain";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { useOpened } from "./opened";

const USUAL = "7d";
const PAGE = 200;
/** Most that an export asks for. */
const EXPORT = 200_000;

type Row = AuditRow & { id: string };

const named = (rows: AuditRow[]): Row[] => rows.map((row) => ({ ...row, id: String(row.number) }));

function useAudit(params: { text: string; from_ms: number | null; until_ms: number | null }): Rows<Row> {
  const asked = useInfiniteQuery({
    queryKey: ["audit", params],
    queryFn: ({ pageParam }) => get<Page<AuditRow>>("/api/v1/audit", { ...params, limit: PAGE, cursor: pageParam }),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next ?? null,
  });
  const rows = useMemo(() => named(asked.data?.pages.flatMap((page) => page.items) ?? []), [asked.data]);
  return {
    rows,
    more: asked.hasNextPage,
    loading: asked.isPending,
    error: asked.error,
    next: () => {
      if (asked.hasNextPage && !asked.isFetchingNextPage) void asked.fetchNextPage();
    },
    retry: () => void asked.refetch(),
    all: async () => {
      const found: AuditRow[] = [];
      let cursor: string | null | undefined = null;
      do {
        const page: Page<AuditRow> = await get<Page<AuditRow>>("/api/v1/audit", { ...params, limit: 500, cursor });
        found.push(...page.items);
        cursor = page.next;
      } while (cursor && found.length < EXPORT);
      return named(found);
    },
  };
}

const told = (row: Row) => JSON.stringify(row.detail);

export function Audit() {
  const { t, i18n } = useTranslation();
  const [text] = useParam("text");
  const [, span] = usePeriod(USUAL);
  const rows = useAudit(useMemo(() => ({ text, ...span }), [text, span]));
  const { opened, open, set } = useOpened();
  const columns: Column<Row>[] = useMemo(
    () => [
      { key: "time", label: t("audit.time"), width: "188px", phone: true, cell: (row) => <Time ms={row.time_ms} whole />, text: (row) => exact(row.time_ms, i18n.language) },
      { key: "actor", label: t("audit.actor"), width: "minmax(90px, 1fr)", phone: true, cell: (row) => <Plain text={row.actor} most={80} />, text: (row) => row.actor },
      { key: "action", label: t("audit.action"), width: "minmax(110px, 1fr)", phone: true, cell: (row) => <Plain text={row.action} most={60} mono />, text: (row) => row.action },
      { key: "target", label: t("audit.target"), width: "minmax(120px, 1.5fr)", cell: (row) => <Plain text={row.target} most={80} mono />, text: (row) => row.target },
      { key: "detail", label: t("audit.detail"), width: "minmax(140px, 3fr)", cell: (row) => <Plain text={told(row)} most={200} mono />, text: told },
      { key: "number", label: t("audit.number"), width: "80px", cell: (row) => <span className="number">{row.number}</span>, text: (row) => row.id, extra: true },
    ],
    [t, i18n.language],
  );
  const row = rows.rows.find((one) => one.id === opened);
  return (
    <>
      <Table name="audit" label={t("admin.audit")} rows={rows} columns={columns} open={(one) => open(one.id)}
        empty={<Empty title={t("audit.none")} hint={t("audit.noneHint")} />}
        tools={
          <>
            <Find label={t("audit.find")} />
            <Period usual={USUAL} />
          </>
        } />
      <Modal opened={row !== undefined} onClose={() => set("")} title={t("audit.one", { number: opened })} size="lg">
        {row && (
          <>
            <Facts
              rows={[
                [t("audit.time"), <Time key="time" ms={row.time_ms} whole />],
                [t("audit.actor"), <Plain key="actor" text={row.actor} />],
                [t("audit.action"), <Plain key="action" text={row.action} mono />],
                [t("audit.target"), <Plain key="target" text={row.target} mono />],
              ]}
            />
            <pre className="result" tabIndex={0} aria-label={t("audit.detail")}>
              <Plain text={JSON.stringify(row.detail, null, 2)} most={20_000} lines />
            </pre>
          </>
        )}
      </Modal>
    </>
  );
}
