// Which detection models are off, and what follows when one fires, as the policy says.
import { MultiSelect, Switch, TextInput } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useModels } from "../../api/queries";
import { Level } from "../../parts/Marks";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { useParam } from "../../parts/address";
import type { Editor } from "./EditPage";
import { isOff, respond, responsesOf, turn } from "./document";

const RESPONSES = ["none", "alert", "kill", "deny", "isolate"];

export function Models({ editor }: { editor: Editor }) {
  const { t } = useTranslation();
  const [asked] = useParam("model");
  const [text, setText] = useState(asked);
  const models = useModels({});
  if (models.isPending) return <Waiting />;
  if (!models.data) return <Failure error={models.error} retry={() => void models.refetch()} />;
  const wanted = text.toLowerCase();
  const shown = models.data.filter((model) => `${model.title} ${model.id} ${model.attack.join(" ")}`.toLowerCase().includes(wanted));
  return (
    <div className="padded stack">
      <p className="dim">{t("policies.modelsHint")}</p>
      <TextInput size="xs" label={t("policies.modelsFind")} value={text} onChange={(event) => setText(event.currentTarget.value)} />
      {shown.length === 0 ? (
        <Empty title={t("models.noMatch")} hint={t("models.noMatchHint")} />
      ) : (
        <ul className="switches">
          {shown.map((model) => {
            const off = isOff(editor.document, model);
            return (
              <li key={model.id}>
                <Switch size="xs" checked={!off} label={model.title} onChange={(event) => {
                  const on = event.currentTarget.checked;
                  editor.change((document) => turn(document, model, !on));
                }} />
                <Level level={model.level} />
                <MultiSelect size="xs" aria-label={t("policies.responseTo", { title: model.title })} value={responsesOf(editor.document, model)} disabled={off}
                  placeholder={responsesOf(editor.document, model).length ? "" : t("policies.unset")} hidePickedOptions clearable
                  data={RESPONSES.map((value) => ({ value, label: t(`policies.response.${value}`) }))}
                  onChange={(list) => editor.change((document) => respond(document, model, list))} />
              </li>
            );
          })}
        </ul>
      )}
    </div>
  );
}
