// Orders a scan: what to look at, on which hosts, and how much of a core it may take.
import { Button, Group, Modal, MultiSelect, NumberInput, SegmentedControl, Textarea } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useSome } from "../../api/queries";
import type { Action, Host } from "../../api/types";
import { useOrders } from "../../parts/orders";
import { visible } from "../../parts/visible";

const HOSTS = 50;

export function ScanDialog({ opened, close }: { opened: boolean; close: () => void }) {
  const { t } = useTranslation();
  return (
    <Modal opened={opened} onClose={close} title={t("scans.start")} size="md">
      {opened && <Form close={close} />}
    </Modal>
  );
}

function Form({ close }: { close: () => void }) {
  const { t } = useTranslation();
  const [scope, setScope] = useState("quick");
  const [paths, setPaths] = useState("");
  const [share, setShare] = useState<number | string>("");
  const [why, setWhy] = useState("");
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState<string[]>([]);
  /** Names of hosts that were chosen, which a later search may not list. */
  const [names, setNames] = useState<Map<string, string>>(new Map());
  const { busy, file } = useOrders();
  const hosts = useSome<Host>("hosts", { text, limit: HOSTS });
  const known = new Map([...names, ...(hosts.data?.items ?? []).filter((host) => !host.revoked_ms).map((host): [string, string] => [host.id, host.name])]);
  const lines = paths.split("\n").map((line) => line.trim()).filter(Boolean);
  const wrong = lines.find((line) => !line.startsWith("/"));
  const ready = chosen.length > 0 && why.trim() !== "" && (scope !== "paths" || (lines.length > 0 && wrong === undefined));
  const send = async () => {
    const action: Action = { action: "scan", scope, paths: scope === "paths" ? lines : [] };
    if (typeof share === "number") action.cpu_share = share;
    const orders = chosen.map((id) => ({ place: { host_id: id, host: known.get(id) ?? id }, action }));
    if (await file(orders, why)) close();
  };
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <MultiSelect label={t("scans.hosts")} placeholder={chosen.length ? "" : t("scans.hostsFind")} value={chosen} searchable searchValue={text} required
        onSearchChange={setText} nothingFoundMessage={t("hosts.noMatch")} maxDropdownHeight={220} data-autofocus hidePickedOptions
        data={[...known].map(([value, name]) => ({ value, label: visible(name) }))}
        onChange={(next) => {
          setChosen(next);
          setNames(new Map(next.map((id) => [id, known.get(id) ?? id])));
        }} />
      <div>
        <SegmentedControl fullWidth value={scope} onChange={setScope} aria-label={t("field.scope")}
          data={["quick", "full", "paths"].map((value) => ({ value, label: t(`scope.${value}`) }))} />
        <p className="dim under">{t(`scopeHint.${scope}`)}</p>
      </div>
      {scope === "paths" && (
        <Textarea label={t("field.paths")} description={t("scans.pathsHint")} value={paths} required autosize minRows={2} maxRows={8}
          error={wrong === undefined ? null : t("scans.relative", { path: visible(wrong) })} onChange={(event) => setPaths(event.currentTarget.value)} />
      )}
      <NumberInput label={t("scans.share")} description={t("scans.shareHint")} value={share} min={1} max={100} allowDecimal={false} onChange={setShare} />
      <p className="effect">{t("scans.effect", { count: chosen.length })}</p>
      <Textarea label={t("order.reason")} description={t("order.reasonHint")} value={why} required maxLength={500} autosize minRows={2}
        onChange={(event) => setWhy(event.currentTarget.value)} />
      <Group justify="flex-end">
        <Button variant="default" onClick={close}>
          {t("cancel")}
        </Button>
        <Button type="submit" loading={busy} disabled={!ready}>
          {t("scans.send", { count: chosen.length })}
        </Button>
      </Group>
    </form>
  );
}
