// Puts a text on the clipboard, as it is.
import { ActionIcon, Tooltip } from "@mantine/core";
import { useClipboard } from "@mantine/hooks";
import { useTranslation } from "react-i18next";
import { Icon } from "./Icon";

export function Copy({ text }: { text: string }) {
  const { t } = useTranslation();
  const clipboard = useClipboard({ timeout: 1_500 });
  const label = t(clipboard.copied ? "copy.done" : "copy.do");
  return (
    <Tooltip label={label}>
      <ActionIcon size="xs" variant="subtle" color="gray" aria-label={label} onClick={() => clipboard.copy(text)}>
        <Icon name="copy" size={13} />
      </ActionIcon>
    </Tooltip>
  );
}
