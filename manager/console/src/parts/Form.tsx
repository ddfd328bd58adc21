// What dialogs have in common: they send, say what was refused, and close.
import { Button, Group } from "@mantine/core";
import { useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { queries } from "../api/queries";
import { useReason } from "./Notice";

/** Sends something; what it changed is asked for again. */
export function useSend(noun: string) {
  const explain = useReason();
  const [busy, setBusy] = useState(false);
  const [why, setWhy] = useState("");
  const send = async <T,>(act: () => Promise<T>): Promise<T | null> => {
    setBusy(true);
    setWhy("");
    try {
      return await act();
    } catch (error) {
      setWhy(explain(error));
      return null;
    } finally {
      setBusy(false);
      void queries.invalidateQueries({ queryKey: [noun] });
    }
  };
  return { send, busy, why };
}

export function Form({ act, children, busy, disabled = false, why, label, close }: {
  act: () => Promise<void>; children: ReactNode; busy: boolean; disabled?: boolean; why: string; label: string; close: () => void;
}) {
  const { t } = useTranslation();
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        void act();
      }}
    >
      {children}
      <p className="why" role="alert">
        {why}
      </p>
      <Group justify="flex-end">
        <Button variant="default" onClick={close}>
          {t("cancel")}
        </Button>
        <Button type="submit" loading={busy} disabled={disabled}>
          {label}
        </Button>
      </Group>
    </form>
  );
}
