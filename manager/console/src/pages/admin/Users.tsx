// Users: who may sign in, and as what.
import { Button, Modal, PasswordInput, Select, Switch, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { patch, post, remove } from "../../api/client";
import { useAll } from "../../api/queries";
import type { User } from "../../api/types";
import { useParam } from "../../parts/address";
import { Find } from "../../parts/Filter";
import { Icon } from "../../parts/Icon";
import { Empty } from "../../parts/Notice";
import { Plain } from "../../parts/Plain";
import { rowsOf } from "../../parts/rowsOf";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { visible } from "../../parts/visible";
import { useRole } from "../../shell/session";
import { Form, useSend } from "../../parts/Form";
import { useOpened } from "./opened";

const ROLES = ["viewer", "operator", "admin"];
const LEAST = 12;

type State = "disabled" | "locked" | "first" | "active";

const stateOf = (user: User): State =>
  user.disabled ? "disabled" : user.locked_until_ms > Date.now() ? "locked" : user.must_change_password ? "first" : "active";

export function Users() {
  const { t, i18n } = useTranslation();
  const users = useAll<User>("users");
  const [text] = useParam("text");
  const { opened, open, set } = useOpened();
  const columns: Column<User>[] = useMemo(
    () => [
      { key: "name", label: t("users.name"), width: "minmax(120px, 2fr)", phone: true, cell: (u) => <Plain text={u.name} most={80} />, text: (u) => u.name },
      { key: "role", label: t("users.role"), width: "110px", phone: true, cell: (u) => t(`role.${u.role}`, { defaultValue: u.role }), text: (u) => u.role },
      {
        key: "state", label: t("alerts.state"), width: "minmax(110px, 1fr)", phone: true, text: stateOf,
        cell: (u) => <span className={`mark user-${stateOf(u)}`}>{t(`users.state.${stateOf(u)}`)}</span>,
      },
      { key: "second", label: t("users.second"), width: "130px", cell: (u) => t(u.second_factor ? "yes" : "no"), text: (u) => String(u.second_factor) },
      { key: "changed", label: t("users.changed"), width: "110px", cell: (u) => <Time ms={u.changed_ms} />, text: (u) => exact(u.changed_ms, i18n.language) },
      { key: "created", label: t("users.created"), width: "110px", cell: (u) => <Time ms={u.created_ms} />, text: (u) => exact(u.created_ms, i18n.language), extra: true },
    ],
    [t, i18n.language],
  );
  const user = users.data?.find((one) => one.id === opened);
  return (
    <>
      <Table name="users" label={t("admin.users")} rows={rowsOf(users, (one) => one.name.toLowerCase().includes(text.toLowerCase()))} columns={columns}
        open={(one) => open(one.id)} mark={(one) => (one.disabled ? "off" : "")} empty={<Empty title={t("users.none")} hint={t("users.noneHint")} />}
        tools={
          <>
            <Find label={t("users.find")} />
            <Button size="xs" leftSection={<Icon name="plus" size={14} />} onClick={() => set("new")}>
              {t("users.add")}
            </Button>
          </>
        } />
      <Modal opened={opened === "new"} onClose={() => set("")} title={t("users.add")}>
        {opened === "new" && <New close={() => set("")} />}
      </Modal>
      <Modal opened={user !== undefined} onClose={() => set("")} title={visible(user?.name ?? "")}>
        {user && <Edit key={`${user.id} ${user.changed_ms}`} user={user} close={() => set("")} />}
      </Modal>
    </>
  );
}

function New({ close }: { close: () => void }) {
  const { t } = useTranslation();
  const { send, busy, why } = useSend("users");
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [password, setPassword] = useState("");
  const act = async () => {
    if (await send(() => post<User>("/api/v1/users", { name, role, password }))) close();
  };
  return (
    <Form act={act} busy={busy} why={why} label={t("users.make")} close={close}>
      <TextInput label={t("users.name")} value={name} required maxLength={64} data-autofocus autoComplete="off" onChange={(event) => setName(event.currentTarget.value)} />
      <RoleSelect value={role} set={setRole} />
      <PasswordInput label={t("users.oneTime")} description={t("users.oneTimeHint", { count: LEAST })} value={password} required minLength={LEAST}
        autoComplete="new-password" onChange={(event) => setPassword(event.currentTarget.value)} />
    </Form>
  );
}

function RoleSelect({ value, set }: { value: string; set: (role: string) => void }) {
  const { t } = useTranslation();
  return (
    <Select label={t("users.role")} description={t(`users.may.${value}`)} value={value} allowDeselect={false} onChange={(next) => set(next ?? value)}
      data={ROLES.map((role) => ({ value: role, label: t(`role.${role}`) }))} />
  );
}

function Edit({ user, close }: { user: User; close: () => void }) {
  const { t } = useTranslation();
  const { name } = useRole();
  const { send, busy, why } = useSend("users");
  const [role, setRole] = useState(user.role);
  const [disabled, setDisabled] = useState(user.disabled);
  const [shell, setShell] = useState(user.may_shell);
  const [password, setPassword] = useState("");
  const [sure, setSure] = useState(false);
  const change = {
    ...(role === user.role ? {} : { role }),
    ...(disabled === user.disabled ? {} : { disabled }),
    ...(shell === user.may_shell ? {} : { may_shell: shell }),
    ...(password === "" ? {} : { password }),
  };
  const act = async () => {
    if (Object.keys(change).length === 0) return close();
    if (await send(() => patch<User>(`/api/v1/users/${user.id}`, change))) {
      notifications.show({ message: t("users.saved", { name: visible(user.name) }) });
      close();
    }
  };
  const unlink = async () => {
    const done = await send(async () => {
      await remove(`/api/v1/users/${user.id}/totp`);
      return true;
    });
    if (done) notifications.show({ message: t("users.secondGone", { name: visible(user.name) }) });
    setSure(false);
  };
  return (
    <Form act={act} busy={busy} why={why} label={t("users.save")} close={close}>
      {user.name === name && <p className="effect">{t("users.self")}</p>}
      <RoleSelect value={role} set={setRole} />
      <Switch label={t("users.disabled")} description={t("users.disabledHint")} checked={disabled} onChange={(event) => setDisabled(event.currentTarget.checked)} />
      <Switch label={t("users.shell")} description={t("users.shellHint")} checked={shell} onChange={(event) => setShell(event.currentTarget.checked)} />
      <PasswordInput label={t("users.newOneTime")} description={t("users.newOneTimeHint", { count: LEAST })} value={password} minLength={LEAST}
        autoComplete="new-password" onChange={(event) => setPassword(event.currentTarget.value)} />
      {user.second_factor && (
        <div className="effect">
          <p>{t(sure ? "users.removeEffect" : "users.hasSecond")}</p>
          <Button size="compact-sm" mt={6} variant={sure ? "filled" : "default"} color="red" onClick={() => (sure ? void unlink() : setSure(true))}>
            {t("users.removeSecond")}
          </Button>
        </div>
      )}
      <p className="dim">{t("users.ends")}</p>
    </Form>
  );
}
