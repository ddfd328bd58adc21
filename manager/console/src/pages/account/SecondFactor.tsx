// One's own second factor: offered, confirmed by a code, removed, with recovery codes that are shown once.
//
// INVARIANT: secret and recovery codes are in this component's memory alone, until it is left.
import { Button, Group, PasswordInput, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { post, Problem } from "../../api/client";
import { queries, useTotp } from "../../api/queries";
import { Copy } from "../../parts/Copy";
import { Card, Facts } from "../../parts/Facts";
import { Failure, useReason, Waiting } from "../../parts/Notice";
import { Time } from "../../parts/Time";

type Step = { at: "state" } | { at: "password" } | { at: "confirm"; secret: string; uri: string } | { at: "remove" | "renew" } | { at: "codes"; codes: string[] };

export function SecondFactor() {
  const { t } = useTranslation();
  const totp = useTotp();
  const reason = useReason();
  const [step, setStep] = useState<Step>({ at: "state" });
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [why, setWhy] = useState("");
  const [busy, setBusy] = useState(false);
  const go = (next: Step) => {
    setStep(next);
    setPassword("");
    setCode("");
    setWhy("");
  };
  const act = async (what: () => Promise<Step>) => {
    setBusy(true);
    setWhy("");
    try {
      go(await what());
      await queries.invalidateQueries({ queryKey: ["totp"] });
    } catch (error) {
      setWhy(error instanceof Problem && error.status === 401 ? t("factor.wrong") : reason(error));
    } finally {
      setBusy(false);
    }
  };
  const send = () =>
    act(async (): Promise<Step> => {
      switch (step.at) {
        case "password": {
          const offer = await post<{ secret: string; uri: string }>("/api/v1/session/totp", { password });
          return { at: "confirm", ...offer };
        }
        case "confirm": {
          const got = await post<{ recovery_codes: string[] }>("/api/v1/session/totp/confirm", { code: code.trim() });
          return { at: "codes", codes: got.recovery_codes };
        }
        case "renew": {
          const got = await post<{ recovery_codes: string[] }>("/api/v1/session/totp/recovery-codes", { password, code: code.trim() });
          return { at: "codes", codes: got.recovery_codes };
        }
        case "remove":
          await post("/api/v1/session/totp/remove", { password, code: code.trim() });
          notifications.show({ message: t("factor.removed") });
          return { at: "state" };
        case "state":
        case "codes":
          return step;
      }
    });
  if (totp.isPending) return <Waiting />;
  if (!totp.data) return <Failure error={totp.error} retry={() => void totp.refetch()} />;
  const { enabled, since_ms, recovery_codes } = totp.data;
  return (
    <Card title={t("factor.title")} side={<span className={`mark ${enabled ? "health-green" : ""}`}>{t(enabled ? "factor.on" : "factor.off")}</span>}>
      {step.at === "state" ? (
        <>
          {enabled && <Facts rows={[[t("factor.since"), <Time key="s" ms={since_ms} whole />], [t("factor.left"), recovery_codes]]} />}
          <p className="dim text">{t(enabled ? "factor.onHint" : "factor.offHint")}</p>
          <Group className="padded" gap="xs">
            {enabled ? (
              <>
                <Button size="xs" variant="default" onClick={() => go({ at: "renew" })}>
                  {t("factor.renew")}
                </Button>
                <Button size="xs" variant="light" color="red" onClick={() => go({ at: "remove" })}>
                  {t("factor.remove")}
                </Button>
              </>
            ) : (
              <Button size="xs" onClick={() => go({ at: "password" })}>
                {t("factor.set")}
              </Button>
            )}
          </Group>
        </>
      ) : step.at === "codes" ? (
        <div className="stack padded">
          <p>{t("factor.codes")}</p>
          <ul className="codes" data-codes>
            {step.codes.map((one) => (
              <li key={one}>
                <code>{one}</code>
              </li>
            ))}
          </ul>
          <Group justify="flex-end">
            <span className="copied">
              {t("factor.copyAll")} <Copy text={step.codes.join("\n")} />
            </span>
            <Button onClick={() => go({ at: "state" })}>{t("factor.kept")}</Button>
          </Group>
        </div>
      ) : (
        <form
          className="stack padded"
          onSubmit={(event) => {
            event.preventDefault();
            void send();
          }}
        >
          {step.at === "confirm" && <Offer secret={step.secret} uri={step.uri} />}
          {step.at !== "confirm" && (
            <>
              <p className="dim">{t(`factor.${step.at}Hint`)}</p>
              <PasswordInput label={t("factor.password")} value={password} required autoFocus autoComplete="current-password"
                onChange={(event) => setPassword(event.currentTarget.value)} />
            </>
          )}
          {step.at !== "password" && (
            <TextInput label={t("signIn.code")} description={t(step.at === "confirm" ? "factor.codeHint" : "signIn.codeHint")} value={code} required
              autoComplete="one-time-code" onChange={(event) => setCode(event.currentTarget.value)} />
          )}
          <p className="why" role="alert">
            {why}
          </p>
          <Group justify="flex-end">
            <Button variant="default" onClick={() => go({ at: "state" })}>
              {t("cancel")}
            </Button>
            <Button type="submit" loading={busy} {...(step.at === "remove" ? { color: "red" } : {})}>
              {t(`factor.${step.at}Send`)}
            </Button>
          </Group>
        </form>
      )}
    </Card>
  );
}

/** What an authenticator app needs: typed by hand, or opened where the app is on this device. */
function Offer({ secret, uri }: { secret: string; uri: string }) {
  const { t } = useTranslation();
  return (
    <>
      <p>{t("factor.offer")}</p>
      <div className="command">
        <code data-secret>{secret.replace(/(.{4})(?=.)/g, "$1 ")}</code>
        <Copy text={secret} />
      </div>
      <div className="command">
        <code data-uri>{uri}</code>
        <Copy text={uri} />
      </div>
      <p>
        <a href={uri}>{t("factor.open")}</a>
      </p>
    </>
  );
}
