// Signing in: name and password, the code of a second factor where it is wanted, and the change of a
// password that must be changed. Why not stands below, with the time to wait where it is locked.
import { Button, PasswordInput, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useState, type FormEvent, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { post, Problem, remove } from "../../api/client";
import { useBeginning, useProviders } from "../../api/queries";
import { useNewPassword } from "../../parts/NewPassword";
import { useReason } from "../../parts/Notice";
import { visible } from "../../parts/visible";

function Door({ title, lead = "", send, children }: { title: string; lead?: string; send: () => void; children: ReactNode }) {
  const { t } = useTranslation();
  const submit = (event: FormEvent) => {
    event.preventDefault();
    send();
  };
  return (
    <main className="door">
      <form onSubmit={submit} aria-label={title}>
        <div className="brand">
          <svg width="30" height="30" viewBox="0 0 32 32" aria-hidden="true">
            <rect width="32" height="32" rx="7" fill="#1c5d99" />
            <path d="M9 7v18M23 7v18M9 16h14" stroke="#fff" strokeWidth="4" strokeLinecap="round" />
          </svg>
          <span>{t("name")}</span>
        </div>
        <h1>{title}</h1>
        {lead && <p className="dim">{lead}</p>}
        {children}
      </form>
    </main>
  );
}

/** Counts down to zero, once a second. */
function useWait(): [number, (seconds: number) => void] {
  const [left, setLeft] = useState(0);
  useEffect(() => {
    if (left <= 0) return;
    const timer = setTimeout(() => setLeft(left - 1), 1_000);
    return () => clearTimeout(timer);
  }, [left]);
  return [left, setLeft];
}

/** Why a sign-in by a provider came back with nothing. The address says one of these words, or nothing. */
const REFUSALS = ["no_provider", "no_attempt", "refused", "provider", "no_role", "name", "taken", "disabled", "last_admin", "failed"];

function refusal(): string | null {
  const word = new URLSearchParams(location.search).get("refused") ?? "";
  return REFUSALS.includes(word) ? word : null;
}

/** By another party's word; nothing where there is no such party. */
function Providers() {
  const { t } = useTranslation();
  const providers = useProviders();
  if (!providers.data?.length) return null;
  return (
    <>
      <p className="or dim">{t("signIn.or")}</p>
      {providers.data.map(({ name }) => (
        <Button key={name} variant="default" fullWidth component="a" href={`/api/v1/session/oidc/${encodeURIComponent(name)}`}>
          {t("signIn.by", { name: visible(name) })}
        </Button>
      ))}
    </>
  );
}

export function SignIn() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const reason = useReason();
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [needsCode, setNeedsCode] = useState(false);
  const [why, setWhy] = useState("");
  const [refused, setRefused] = useState(refusal);
  const [busy, setBusy] = useState(false);
  const [left, wait] = useWait();
  const first = useBeginning().data?.waiting === true;
  const send = async () => {
    setBusy(true);
    setWhy("");
    setRefused(null);
    try {
      await post("/api/v1/session", needsCode ? { name, password, code: code.trim() } : { name, password });
      await client.invalidateQueries({ queryKey: ["session"] });
    } catch (error) {
      const problem = error instanceof Problem ? error : null;
      if (problem?.secondFactor && !needsCode) setNeedsCode(true);
      else if (problem?.status === 401) setWhy(t(needsCode ? "signIn.wrongCode" : "signIn.wrong"));
      else if (problem?.status === 429) {
        setWhy(t("signIn.locked"));
        wait(problem.retryAfter ?? 6);
      } else setWhy(reason(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <Door title={t("signIn.title")} lead={needsCode ? t("signIn.leadCode") : first ? t("signIn.lead") : ""} send={() => void send()}>
      {needsCode ? (
        <TextInput label={t("signIn.code")} description={t("signIn.codeHint")} value={code} autoFocus required
          autoComplete="one-time-code" onChange={(event) => setCode(event.currentTarget.value)} />
      ) : (
        <>
          <TextInput label={t("signIn.name")} value={name} autoFocus required autoComplete="username"
            onChange={(event) => setName(event.currentTarget.value)} />
          <PasswordInput label={t("signIn.password")} value={password} required autoComplete="current-password"
            onChange={(event) => setPassword(event.currentTarget.value)} />
        </>
      )}
      <p className="why" role="alert">
        {refused !== null && t(`signIn.refused.${refused}`)} {why} {left > 0 && t("problem.later", { count: left })}
      </p>
      <Button type="submit" fullWidth loading={busy} disabled={left > 0}>
        {t("signIn.send")}
      </Button>
      {!needsCode && <Providers />}
    </Door>
  );
}

export function FirstPassword({ name }: { name: string }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const { fields, busy, send } = useNewPassword(() => client.invalidateQueries({ queryKey: ["session"] }), true);
  const leave = async () => {
    await remove("/api/v1/session").catch(() => undefined);
    client.setQueryData(["session"], null);
  };
  return (
    <Door title={t("password.title")} lead={t("password.lead", { name })} send={() => void send()}>
      {fields}
      <Button type="submit" fullWidth loading={busy}>
        {t("password.send")}
      </Button>
      <Button variant="subtle" color="gray" fullWidth onClick={() => void leave()}>
        {t("frame.signOut")}
      </Button>
    </Door>
  );
}
