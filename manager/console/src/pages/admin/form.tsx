// What the dialogs of this page have in common: they send, say what was refused, and close.
import { Button, Group } from "@mantine/core";
import { useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { useSearchParams } from "react-router";
import { queries } from "../../api/queries";
import { useReason } from "../../parts/Notice";

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

export function Form({ act, children, busy, why, label, close }: {
  act: () => Promise<void>; children: ReactNode; busy: boolean; why: string; label: string; close: () => void;
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
        <Button type="submit" loading={busy}>
          {label}
        </Button>
      </Group>
    </form>
  );
}

/** What of a list is open, by a word of the address. */
export function useOpened(): { opened: string; open: (id: string) => string; set: (id: string) => void } {
  const [params, setParams] = useSearchParams();
  const open = (id: string) => {
    const next = new URLSearchParams(params);
    next.set("open", id);
    return `?${next}`;
  };
  const set = (id: string) =>
    setParams((before) => {
      const next = new URLSearchParams(before);
      if (id) next.set("open", id);
      else next.delete("open");
      return next;
    });
  return { opened: params.get("open") ?? "", open, set };
}
