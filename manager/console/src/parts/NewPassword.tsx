// The fields by which people change their own password, and why it was not changed. The form around
// them and its button belong to the page.
import { PasswordInput } from "@mantine/core";
import { useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { post, Problem } from "../api/client";
import { useReason } from "./Notice";

/** As the manager has it. */
const LEAST = 12;

export function useNewPassword(done: () => void | Promise<void>, focus = false): { fields: ReactNode; busy: boolean; send: () => Promise<void> } {
  const { t } = useTranslation();
  const reason = useReason();
  const [old, setOld] = useState("");
  const [fresh, setFresh] = useState("");
  const [again, setAgain] = useState("");
  const [why, setWhy] = useState("");
  const [busy, setBusy] = useState(false);
  const send = async () => {
    if (fresh !== again) {
      setWhy(t("password.differ"));
      return;
    }
    setBusy(true);
    setWhy("");
    try {
      await post("/api/v1/session/password", { old, new: fresh });
      for (const set of [setOld, setFresh, setAgain]) set("");
      await done();
    } catch (error) {
      setWhy(error instanceof Problem && error.status === 401 ? t("password.wrong") : reason(error));
    } finally {
      setBusy(false);
    }
  };
  const fields = (
    <>
      <PasswordInput label={t("password.old")} value={old} autoFocus={focus} required autoComplete="current-password"
        onChange={(event) => setOld(event.currentTarget.value)} />
      <PasswordInput label={t("password.new")} description={t("password.hint", { count: LEAST })} value={fresh} required
        minLength={LEAST} autoComplete="new-password" onChange={(event) => setFresh(event.currentTarget.value)} />
      <PasswordInput label={t("password.again")} value={again} required autoComplete="new-password"
        onChange={(event) => setAgain(event.currentTarget.value)} />
      <p className="why" role="alert">
        {why}
      </p>
    </>
  );
  return { fields, busy, send };
}
