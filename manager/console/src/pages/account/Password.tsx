// Changes one's own password. Other sign-ins end by it.
import { Button, Group } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useTranslation } from "react-i18next";
import { Card } from "../../parts/Facts";
import { useNewPassword } from "../../parts/NewPassword";

export function Password() {
  const { t } = useTranslation();
  const { fields, busy, send } = useNewPassword(() => void notifications.show({ message: t("account.passwordDone") }));
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
        {fields}
        <Group justify="flex-end">
          <Button type="submit" loading={busy}>
            {t("account.passwordSend")}
          </Button>
        </Group>
      </form>
    </Card>
  );
}
