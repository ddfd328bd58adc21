// One's own API tokens: made, shown once, ended.
import { Button, Checkbox, Group, Modal, Select, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { post, remove } from "../../api/client";
import { queries, useApiTokens } from "../../api/queries";
import type { ApiToken } from "../../api/types";
import { Copy } from "../../parts/Copy";
import { Card } from "../../parts/Facts";
import { Form, useSend } from "../../parts/Form";
import { Empty, Failure, useReason, Waiting } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { Time } from "../../parts/Time";
import { useRole } from "../../shell/session";

const DAYS = ["1", "30", "90", "365"];

export function Tokens() {
  const { t } = useTranslation();
  const reason = useReason();
  const tokens = useApiTokens();
  const [making, setMaking] = useState(false);
  const [ending, setEnding] = useState<ApiToken | null>(null);
  const end = async (token: ApiToken) => {
    try {
      await remove(`/api/v1/api-tokens/${token.id}`);
    } catch (error) {
      notifications.show({ color: "red", message: reason(error) });
    }
    setEnding(null);
    await queries.invalidateQueries({ queryKey: ["api-tokens"] });
  };
  const make = (
    <Button size="compact-sm" onClick={() => setMaking(true)}>
      {t("tokens.make")}
    </Button>
  );
  return (
    <Card title={t("tokens.title")} side={make}>
      {tokens.isPending ? (
        <Waiting />
      ) : !tokens.data ? (
        <Failure error={tokens.error} retry={() => void tokens.refetch()} />
      ) : tokens.data.length === 0 ? (
        <Empty title={t("tokens.none")} hint={t("tokens.noneHint")} />
      ) : (
        <div className="sheet" tabIndex={0} role="region" aria-label={t("tokens.title")}>
          <table>
            <thead>
              <tr>
                {["name", "scopes", "created", "used", "expires"].map((name) => (
                  <th key={name} scope="col">
                    {t(`tokens.${name}`)}
                  </th>
                ))}
                <td />
              </tr>
            </thead>
            <tbody>
              {tokens.data.map((token) => (
                <tr key={token.id}>
                  <td>
                    <Plain text={token.name} most={80} />
                  </td>
                  <td>{token.scopes.map((scope) => t(`scopes.${scope}`, { defaultValue: scope })).join(", ")}</td>
                  <td>
                    <Time ms={token.created_ms} />
                  </td>
                  <td>{token.used_ms > token.created_ms ? <Time ms={token.used_ms} /> : <span className="dim">{t("time.never")}</span>}</td>
                  <td>
                    <Time ms={token.expires_ms} />
                  </td>
                  <td>
                    <Button size="compact-sm" variant="subtle" color="red" onClick={() => setEnding(token)} aria-label={t("tokens.endOne", { name: token.name })}>
                      {t("tokens.end")}
                    </Button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <Modal opened={making} onClose={() => setMaking(false)} title={t("tokens.make")}>
        {making && <Wanted close={() => setMaking(false)} />}
      </Modal>
      <Modal opened={ending !== null} onClose={() => setEnding(null)} title={t("tokens.end")}>
        {ending && (
          <div className="stack">
            <div className="effect danger">
              <p>{t("tokens.endEffect")}</p>
              <strong>
                <Plain text={ending.name} most={100} />
              </strong>
            </div>
            <Group justify="flex-end">
              <Button variant="default" onClick={() => setEnding(null)}>
                {t("cancel")}
              </Button>
              <Button color="red" data-autofocus onClick={() => void end(ending)}>
                {t("tokens.end")}
              </Button>
            </Group>
          </div>
        )}
      </Modal>
    </Card>
  );
}

function Wanted({ close }: { close: () => void }) {
  const { t } = useTranslation();
  const { send, busy, why } = useSend("api-tokens");
  const { operator, admin, shell } = useRole();
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<string[]>(["read"]);
  const [days, setDays] = useState("90");
  const [made, setMade] = useState<ApiToken | null>(null);
  const offered = ["read", "metrics", ...(operator ? ["respond"] : []), ...(shell ? ["shell"] : []), ...(admin ? ["administer"] : [])];
  const act = async () => {
    const body = { name: name.trim(), scopes, valid_s: Number(days) * 86_400 };
    const token = await send(() => post<ApiToken>("/api/v1/api-tokens", body));
    if (token) setMade(token);
  };
  if (made) {
    return (
      <div className="stack">
        <p>{t("tokens.once")}</p>
        <div className="command">
          <code data-token>{made.token}</code>
          <Copy text={made.token ?? ""} />
        </div>
        <Group justify="flex-end">
          <Button onClick={close}>{t("add.done")}</Button>
        </Group>
      </div>
    );
  }
  return (
    <Form act={act} busy={busy} disabled={name.trim() === "" || scopes.length === 0} why={why} label={t("tokens.make")} close={close}>
      <TextInput label={t("tokens.name")} description={t("tokens.nameHint")} value={name} required maxLength={100} data-autofocus
        onChange={(event) => setName(event.currentTarget.value)} />
      <Checkbox.Group label={t("tokens.scopes")} description={t("tokens.scopesHint")} value={scopes} onChange={setScopes}>
        <div className="choices">
          {offered.map((scope) => (
            <Checkbox key={scope} value={scope} label={t(`scopes.${scope}`)} />
          ))}
        </div>
      </Checkbox.Group>
      <Select label={t("add.valid")} value={days} allowDeselect={false} onChange={(value) => setDays(value ?? "90")}
        data={DAYS.map((value) => ({ value, label: t("tokens.days", { count: Number(value) }) }))} />
    </Form>
  );
}
