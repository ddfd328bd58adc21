// Enrollment tokens: which hosts may come here, how many, until when.
import { Button, Modal } from "@mantine/core";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { remove } from "../../api/client";
import { useAll } from "../../api/queries";
import { queries } from "../../api/queries";
import type { EnrollmentToken } from "../../api/types";
import { useParam } from "../../parts/address";
import { Facts } from "../../parts/Facts";
import { Find } from "../../parts/Filter";
import { Icon } from "../../parts/Icon";
import { Empty } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { rowsOf } from "../../parts/rowsOf";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { AddHost } from "../hosts/AddHost";
import { Form, useSend } from "../../parts/Form";
import { useOpened } from "./opened";

type State = "revoked" | "expired" | "used" | "valid";

const stateOf = (token: EnrollmentToken): State =>
  token.revoked_ms ? "revoked" : token.expires_ms < Date.now() ? "expired" : token.uses_left === 0 ? "used" : "valid";

export function Enrollment() {
  const { t, i18n } = useTranslation();
  const tokens = useAll<EnrollmentToken>("enrollment-tokens");
  const [text] = useParam("text");
  const { opened, open, set } = useOpened();
  const columns: Column<EnrollmentToken>[] = useMemo(
    () => [
      { key: "group", label: t("add.group"), width: "minmax(110px, 1fr)", phone: true, cell: (one) => <Plain text={one.group} most={80} />, text: (one) => one.group },
      { key: "state", label: t("alerts.state"), width: "110px", phone: true, cell: (one) => <span className={`mark token-${stateOf(one)}`}>{t(`enrollments.state.${stateOf(one)}`)}</span>, text: stateOf },
      { key: "uses", label: t("enrollments.uses"), width: "110px", phone: true, cell: (one) => t("enrollments.left", { left: one.uses_left, all: one.uses }), text: (one) => `${one.uses_left}/${one.uses}` },
      { key: "expires", label: t("enrollments.expires"), width: "120px", cell: (one) => <Time ms={one.expires_ms} />, text: (one) => exact(one.expires_ms, i18n.language) },
      { key: "by", label: t("enrollments.by"), width: "minmax(90px, 1fr)", cell: (one) => <Plain text={one.created_by} most={60} />, text: (one) => one.created_by },
      { key: "created", label: t("enrollments.created"), width: "120px", cell: (one) => <Time ms={one.created_ms} />, text: (one) => exact(one.created_ms, i18n.language) },
      { key: "note", label: t("enrollments.note"), width: "minmax(90px, 2fr)", cell: (one) => <Plain text={one.note} most={120} />, text: (one) => one.note },
    ],
    [t, i18n.language],
  );
  const token = tokens.data?.find((one) => one.id === opened);
  const wanted = text.toLowerCase();
  return (
    <>
      <Table name="enrollment" label={t("admin.enrollment")} columns={columns} open={(one) => open(one.id)} mark={(one) => (stateOf(one) === "valid" ? "" : "off")}
        rows={rowsOf(tokens, (one) => `${one.group} ${one.note} ${one.created_by}`.toLowerCase().includes(wanted))}
        empty={<Empty title={t("enrollments.none")} hint={t("enrollments.noneHint")} />}
        tools={
          <>
            <Find label={t("enrollments.find")} />
            <Button size="xs" leftSection={<Icon name="plus" size={14} />} onClick={() => set("new")}>
              {t("enrollments.add")}
            </Button>
          </>
        } />
      <AddHost opened={opened === "new"} close={() => {
        set("");
        void queries.invalidateQueries({ queryKey: ["enrollment-tokens"] });
      }} />
      <Modal opened={token !== undefined} onClose={() => set("")} title={t("enrollments.one")}>
        {token && <Token token={token} close={() => set("")} />}
      </Modal>
    </>
  );
}

function Token({ token, close }: { token: EnrollmentToken; close: () => void }) {
  const { t } = useTranslation();
  const { send, busy, why } = useSend("enrollment-tokens");
  const [gone, setGone] = useState(false);
  const facts = (
    <Facts
      rows={[
        [t("add.group"), <Plain key="group" text={token.group} most={100} />],
        [t("enrollments.note"), token.note ? <Plain text={token.note} most={300} /> : null],
        [t("enrollments.uses"), t("enrollments.left", { left: token.uses_left, all: token.uses })],
        [t("enrollments.by"), <Plain key="by" text={token.created_by} most={100} />],
        [t("enrollments.created"), <Time key="created" ms={token.created_ms} whole />],
        [t("enrollments.expires"), <Time key="expires" ms={token.expires_ms} whole />],
        [t("enrollments.revoked"), token.revoked_ms ? <Time ms={token.revoked_ms} whole /> : null],
      ]}
    />
  );
  if (stateOf(token) !== "valid" || gone) return facts;
  const act = async () => {
    const done = await send(async () => {
      await remove(`/api/v1/enrollment-tokens/${token.id}`);
      return true;
    });
    if (done) {
      setGone(true);
      close();
    }
  };
  return (
    <Form act={act} busy={busy} why={why} label={t("enrollments.revoke")} close={close}>
      {facts}
      <p className="effect">{t("enrollments.revokeEffect")}</p>
    </Form>
  );
}
