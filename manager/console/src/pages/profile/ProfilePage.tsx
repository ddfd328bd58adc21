// A process: what started it, what it started, and what each of them did.
import { Button, Menu, Slider } from "@mantine/core";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { useNavigate, useParams } from "react-router";
import { Problem } from "../../api/client";
import { useHost, useProfile } from "../../api/queries";
import type { ProfileNode } from "../../api/types";
import { Card, Facts } from "../../parts/Facts";
import { Head } from "../../parts/Head";
import { Isolation } from "../../parts/Isolation";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { OrderDialog, type Order } from "../../parts/OrderDialog";
import { Period, usePeriod } from "../../parts/Period";
import { Plain } from "../../parts/Plain";
import { Copy } from "../../parts/Copy";
import { exact, Time } from "../../parts/Time";
import { useFile } from "../../parts/useFile";
import { Why } from "../../parts/Why";
import { ROUTES } from "../../routes";
import { useRole } from "../../shell/session";
import { Graph } from "./Graph";
import { keyOf, layout } from "./layout";
import { deeds, line, program, seen } from "./words";

const USUAL = "24h";

export default function ProfilePage() {
  const { t } = useTranslation();
  const { id = "", key = "" } = useParams();
  const [, span] = usePeriod(USUAL);
  const profile = useProfile(id, key, { ...span });
  const host = useHost(id);
  const own = profile.data?.nodes.find((node) => node.kin === "own");
  const gone = profile.error instanceof Problem && profile.error.status === 404;
  return (
    <div className="page">
      <Isolation host={id} />
      <Head
        to={`/hosts/${id}`}
        back={
          <>
            <Plain text={host.data?.name ?? ""} most={80} />
          </>
        }
        title={
          <>
            {t("profile.title")} {own && <Plain text={program(own)} most={80} />}
          </>
        }
        side={<Period usual={USUAL} />}
      />
      {profile.isPending ? (
        <Waiting />
      ) : gone ? (
        <Empty title={t("profile.none")} hint={t("profile.noneHint")} />
      ) : profile.data ? (
        <Shown key={`${id} ${key}`} host={id} name={host.data?.name ?? id} nodes={profile.data.nodes} truncated={profile.data.truncated}
          period={`${span.from_ms ?? ""}-${span.until_ms ?? ""}`} first={key} />
      ) : (
        <Failure error={profile.error} retry={() => void profile.refetch()} />
      )}
    </div>
  );
}

interface Shown {
  host: string;
  name: string;
  nodes: ProfileNode[];
  truncated: boolean;
  period: string;
  first: string;
}

/** Children beyond which a process is folded at first. */
const MANY = 30;

function useTimes(nodes: ProfileNode[]): [number, number] {
  return useMemo(() => {
    const times = nodes.flatMap((node) => [node.first_ms, node.last_ms, node.ended_ms]).filter((ms) => typeof ms === "number");
    return [Math.min(...times), Math.max(...times)];
  }, [nodes]);
}

function Shown({ host, name, nodes, truncated, first }: Shown) {
  const { t, i18n } = useTranslation();
  const [chosen, choose] = useState(first);
  const [until, setUntil] = useState<number | null>(null);
  const [folded, setFolded] = useState<ReadonlySet<string>>(() => {
    const children = new Map<string, number>();
    for (const node of nodes) if (node.parent) children.set(keyOf(node.parent), (children.get(keyOf(node.parent)) ?? 0) + 1);
    return new Set([...children].filter(([, count]) => count > MANY).map(([id]) => id));
  });
  const [from, to] = useTimes(nodes);
  const placed = useMemo(() => layout(nodes.filter((node) => seen(node, until)), folded), [nodes, until, folded]);
  const fold = (id: string, close: boolean) =>
    setFolded((before) => {
      const next = new Set(before);
      if (close) next.add(id);
      else next.delete(id);
      return next;
    });
  const actions = useActions(host, name);
  const node = placed.find((one) => one.id === chosen)?.node ?? placed[0]?.node;
  return (
    <>
      {truncated && <p className="banner lost">{t("profile.truncated")}</p>}
      <Card title={t("profile.tree")} side={<span className="dim">{t("profile.processes", { count: placed.length })}</span>}>
        <Graph placed={placed} chosen={chosen} choose={choose} fold={fold} until={until} menu={actions.menu} />
        {to > from && (
          <div className="slider">
            <Slider size="sm" min={from - 1} max={to} step={Math.max(1, Math.floor((to - from) / 500))} value={until ?? to}
              onChange={(value) => setUntil(value >= to ? null : value)} label={null}
              thumbLabel={t("profile.moment")} />
            <span className="dim nowrap">{until === null ? t("profile.allTimes") : exact(until, i18n.language)}</span>
          </div>
        )}
      </Card>
      {node && <Detail key={keyOf(node.process.key)} node={node} until={until} actions={actions.buttons(node)} />}
      {actions.dialogs}
    </>
  );
}

/** What can be done with a process: as lines of its menu, and as buttons. */
function useActions(host: string, name: string) {
  const { t } = useTranslation();
  const { operator } = useRole();
  const navigate = useNavigate();
  const file = useFile();
  const [order, setOrder] = useState<Order | null>(null);
  const [deny, setDeny] = useState<string | null>(null);
  const targets = [{ host_id: host, host: name }];
  const search = ROUTES.some((route) => route.path === "/search");
  const look = (text: string) => void navigate(`/search?${new URLSearchParams({ query: text })}`);

  const all = (node: ProfileNode): { key: string; danger?: boolean; act: () => void }[] => {
    const { process } = node;
    const path = process.script ?? process.exe;
    const found = [];
    const words = line(node).match(/[\p{L}\p{N}]/u) && line(node).replaceAll(/["\\]/g, " ").slice(0, 1000);
    if (search && words) found.push({ key: "sameLine", act: () => look(`cmdline:"${words}"`) });
    if (search && process.sha256) found.push({ key: "sameHash", act: () => look(`sha256:${process.sha256}`) });
    if (node.kin !== "own") found.push({ key: "from", act: () => void navigate(`/hosts/${host}/processes/${keyOf(process.key)}${location.search}`) });
    if (!operator) return found;
    if (path.startsWith("/")) found.push({ key: "collect", act: () => setOrder({ wish: { kind: "collect", path }, targets }) });
    if (!node.ended_ms && process.key.start_ns > 0 && process.key.pid > 1)
      found.push({ key: "kill", danger: true, act: () => setOrder({ wish: { kind: "kill", process: process.key, command: line(node) }, targets }) });
    const { sha256 } = process;
    if (sha256) found.push({ key: "deny", danger: true, act: () => setDeny(sha256) });
    return found;
  };

  return {
    menu: (node: ProfileNode) => {
      const list = all(node);
      return list.length ? (
        list.map(({ key, danger, act }) => (
          <Menu.Item key={key} onClick={act} {...(danger ? { color: "red" } : {})}>
            {t(`profile.do.${key}`)}
          </Menu.Item>
        ))
      ) : (
        <Menu.Label>{t("profile.nothing")}</Menu.Label>
      );
    },
    buttons: (node: ProfileNode) =>
      all(node).map(({ key, danger, act }) => (
        <Button key={key} size="compact-sm" variant={danger ? "light" : "default"} {...(danger ? { color: "red" } : {})} onClick={act}>
          {t(`profile.do.${key}`)}
        </Button>
      )),
    dialogs: (
      <>
        <OrderDialog order={order} close={() => setOrder(null)} />
        <Why opened={deny !== null} title={t("profile.do.deny")} effect={t("profile.denyEffect", { hash: deny ?? "" })} send={t("profile.denySend")}
          close={() => setDeny(null)}
          done={async (reason) => {
            if (deny && (await file(host, { action: "deny_hash", sha256: deny }, reason))) setDeny(null);
          }} />
      </>
    ),
  };
}

function Detail({ node, until, actions }: { node: ProfileNode; until: number | null; actions: React.ReactNode }) {
  const { t } = useTranslation();
  const { process } = node;
  const items = deeds(node, until);
  const text = (value: string | null | undefined) => (value ? <Plain text={value} most={300} /> : null);
  return (
    <div className="two">
      <Card title={t("profile.process")} side={<span className="actions">{actions}</span>}>
        <div className="command">
          <code>
            <Plain text={line(node)} most={1000} />
          </code>
          <Copy text={line(node)} />
        </div>
        {process.args_truncated && <p className="dim hint">{t("profile.cut")}</p>}
        <Facts
          rows={[
            [t("evidence.program"), text(process.exe)],
            [t("evidence.script"), text(process.script)],
            [t("evidence.user"), text(`${process.user} (${process.uid}${process.euid === process.uid ? "" : ` → ${process.euid}`})`)],
            [t("evidence.pid"), process.key.pid],
            [t("evidence.cwd"), text(process.cwd)],
            [t("profile.terminal"), text(process.tty)],
            [t("evidence.container"), text(process.container)],
            [t("evidence.sha256"), process.sha256 ? <Plain text={process.sha256} mono /> : null],
            [t("profile.first"), node.first_ms ? <Time ms={node.first_ms} whole /> : null],
            [t("profile.last"), node.last_ms ? <Time ms={node.last_ms} whole /> : null],
            [t("profile.ended"), node.ended_ms ? <Time ms={node.ended_ms} whole /> : null],
          ]}
        />
      </Card>
      <Card title={t("profile.did")} side={node.more ? <span className="dim">{t("profile.newest", { count: node.items.length })}</span> : null}>
        {items.length === 0 ? (
          <Empty title={t("profile.quiet")} hint={t("profile.quietHint")} />
        ) : (
          <ol className="story deeds">
            {items.map((item) => (
              <li key={item.number}>
                <Time ms={item.time_ms} />
                <div>
                  <span className={`deed deed-${item.deed}`}>{t(`profile.deed.${item.deed}`)}</span>{" "}
                  <small>
                    <Plain text={item.action} most={80} />
                    {item.count > 1 && ` × ${item.count}`}
                  </small>
                  <div className="mono">
                    <Plain text={item.what} most={200} />
                  </div>
                </div>
              </li>
            ))}
          </ol>
        )}
      </Card>
    </div>
  );
}
