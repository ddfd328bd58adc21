// Changes one's own password. Other sign-ins end by it.
import { Button, Group, PasswordInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { post, Problem } from "../../api/client";
import { Card } from "../../parts/Facts";
import { useReason } from "../../parts/Notice";
import { LEAST } from "../sign-in/SignIn";

export function Password() {
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
      setOld("");
      setFresh("");
      setAgain("");
      notifications.show({ message: t("account.passwordDone") });
    } catch (error) {
      setWhy(error instanceof Problem && error.status === 401 ? t("password.wrong") : reason(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <Card title={t("signIn.password")}>
      <form
        className="stack padded"
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <p className="dim">{t("account.passwordHint")}</p>
        <PasswordInput label={t("password.old")} value={old} required autoComplete="current-password" onChange={(event) => setOld(event.currentTarget.value)} />
        <PasswordInput label={t("password.new")} description={t("password.hint", { count: LEAST })} value={fresh} required minLength={LEAST}
          autoComplete="new-password" onChange={(event) => setFresh(event.currentTarget.value)} />
        <PasswordInput label={t("password.again")} value={again} required autoComplete="new-password" onChange={(event) => setAgain(event.currentTarget.value)} />
        <p className="why" role="alert">
          {why}
        </p>
        <Group justify="flex-end">
          <Button type="submit" loading={busy}>
            {t("account.passwordSend")}
          </Button>
        </Group>
      </form>
    </Card>
  );
}
