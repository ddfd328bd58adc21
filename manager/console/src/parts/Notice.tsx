// What stands where something else is missing: nothing found, nothing yet, or why not.
import { Alert, Button, Loader } from "@mantine/core";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { Problem } from "../api/client";
import { visible } from "./visible";

export function Empty({ title, hint, children }: { title: string; hint: string; children?: ReactNode }) {
  return (
    <div className="empty" role="status">
      <strong>{title}</strong>
      <p>{hint}</p>
      {children}
    </div>
  );
}

export function Waiting() {
  const { t } = useTranslation();
  return (
    <div className="empty" role="status" aria-label={t("wait")}>
      <Loader size="sm" />
    </div>
  );
}

/** What went wrong, in words. */
export function useReason() {
  const { t } = useTranslation();
  return (error: unknown): string => {
    if (!(error instanceof Problem)) return t("problem.page");
    if (error.status === 0) return t("problem.away");
    if (error.status === 404) return t("problem.gone");
    const again = error.retryAfter ? ` ${t("problem.later", { count: error.retryAfter })}` : "";
    return visible(error.detail) + again;
  };
}

export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  const { t } = useTranslation();
  const reason = useReason();
  return (
    <Alert color="red" variant="light" title={t("problem.title")} m="md">
      <p>{reason(error)}</p>
      {retry && (
        <Button size="xs" variant="default" onClick={retry}>
          {t("problem.retry")}
        </Button>
      )}
    </Alert>
  );
}
