// Asks why, for what is no response task.
import { Button, Group, Modal, Textarea } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";

interface Props {
  opened: boolean;
  title: string;
  effect: string;
  send: string;
  close: () => void;
  done: (reason: string) => Promise<void>;
}

export function Why({ opened, title, effect, send, close, done }: Props) {
  const { t } = useTranslation();
  const [why, setWhy] = useState("");
  const [busy, setBusy] = useState(false);
  return (
    <Modal opened={opened} onClose={close} title={title}>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          setBusy(true);
          void done(why.trim()).finally(() => {
            setBusy(false);
            setWhy("");
          });
        }}
      >
        <p className="effect">{effect}</p>
        <Textarea label={t("order.reason")} description={t("order.reasonHint")} value={why} required data-autofocus maxLength={500}
          autosize minRows={2} onChange={(event) => setWhy(event.currentTarget.value)} />
        <Group justify="flex-end">
          <Button variant="default" onClick={close}>
            {t("cancel")}
          </Button>
          <Button type="submit" color="red" loading={busy} disabled={why.trim() === ""}>
            {send}
          </Button>
        </Group>
      </form>
    </Modal>
  );
}
