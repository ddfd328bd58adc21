// The tree of processes: drawn from left to right, moved in by keys as a tree is (arrows, Enter).
import { ActionIcon, Menu } from "@mantine/core";
import { useEffect, useRef, useState, type KeyboardEvent, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import type { ProfileNode } from "../../api/types";
import { Icon } from "../../parts/Icon";
import { cut, visible } from "../../parts/visible";
import type { Placed } from "./layout";
import { counted, line, program } from "./words";

const WIDTH = 216;
const HEIGHT = 50;
const ACROSS = WIDTH + 44;
const DOWN = HEIGHT + 10;
const EDGE = 10;

interface Props {
  placed: Placed<ProfileNode>[];
  chosen: string;
  choose: (id: string) => void;
  fold: (id: string, folded: boolean) => void;
  /** Of the moment that is shown; nothing for all. */
  until: number | null;
  menu: (node: ProfileNode) => ReactNode;
}

export function Graph({ placed, chosen, choose, fold, until, menu }: Props) {
  const { t } = useTranslation();
  const [opened, setOpened] = useState<string | null>(null);
  const frame = useRef<HTMLDivElement>(null);
  const focus = useRef(false);
  const rows = Math.max(0, ...placed.map((one) => one.row)) + 1;
  const columns = Math.max(0, ...placed.map((one) => one.depth)) + 1;
  const places = new Map(placed.map((one) => [one.id, one]));
  const current = places.has(chosen) ? chosen : placed[0]?.id;
  const x = (one: Placed<ProfileNode>) => EDGE + one.depth * ACROSS;
  const y = (one: Placed<ProfileNode>) => EDGE + one.row * DOWN;

  useEffect(() => {
    const node = frame.current?.querySelector<HTMLElement>('[role="treeitem"][tabindex="0"]');
    node?.scrollIntoView({ block: "nearest", inline: "center" });
    if (focus.current) node?.focus();
    focus.current = false;
  }, [current]);

  const keys = (event: KeyboardEvent) => {
    if (event.target !== event.currentTarget.querySelector('[role="treeitem"][tabindex="0"]')) return;
    const at = placed.findIndex((one) => one.id === current);
    const one = placed[at];
    if (!one) return;
    const go = (to: Placed<ProfileNode> | undefined) => {
      if (!to) return;
      focus.current = true;
      choose(to.id);
    };
    if (event.key === "ArrowDown") go(placed[at + 1]);
    else if (event.key === "ArrowUp") go(placed[at - 1]);
    else if (event.key === "Home") go(placed[0]);
    else if (event.key === "End") go(placed.at(-1));
    else if (event.key === "ArrowLeft" && one.children > 0 && !one.folded) fold(one.id, true);
    else if (event.key === "ArrowLeft") go(one.parent === null ? undefined : places.get(one.parent));
    else if (event.key === "ArrowRight" && one.folded) fold(one.id, false);
    else if (event.key === "ArrowRight") go(one.children > 0 ? placed[at + 1] : undefined);
    else if (event.key === "Enter" || event.key === " ") setOpened(one.id);
    else return;
    event.preventDefault();
  };

  return (
    <div className="graph" ref={frame}>
      <div className="graph-field" role="tree" aria-label={t("profile.tree")} onKeyDown={keys}
        style={{ width: columns * ACROSS + EDGE * 2 - 44, height: rows * DOWN + EDGE * 2 - 10 }}>
        <svg aria-hidden="true" width="100%" height="100%">
          {placed.map((one) => {
            const parent = one.parent === null ? undefined : places.get(one.parent);
            if (!parent) return null;
            const [fromX, fromY, toX, toY] = [x(parent) + WIDTH, y(parent) + HEIGHT / 2, x(one), y(one) + HEIGHT / 2];
            const middle = toX - 22;
            return <path key={one.id} d={`M${fromX} ${fromY}H${middle}V${toY}H${toX}`} />;
          })}
        </svg>
        {placed.map((one) => {
          const { node, id } = one;
          const counts = counted(node, until);
          const name = program(node);
          return (
            <div key={id} role="treeitem" aria-level={one.depth + 1} aria-selected={id === current} tabIndex={id === current ? 0 : -1}
              {...(one.children > 0 ? { "aria-expanded": !one.folded } : {})}
              className={`process ${node.kin} ${id === current ? "on" : ""} ${counts.detection > 0 ? "detected" : ""} ${node.ended_ms ? "ended" : ""}`}
              style={{ left: x(one), top: y(one), width: WIDTH, height: HEIGHT }} title={visible(cut(line(node), 1000))}
              onClick={() => choose(id)} onContextMenu={(event) => {
                event.preventDefault();
                choose(id);
                setOpened(id);
              }}>
              <span className="process-name">
                <bdi>{visible(cut(name, 60))}</bdi> <span className="dim">{node.process.key.pid}</span>
              </span>
              <span className="process-line mono">
                <bdi>{visible(cut(line(node), 120))}</bdi>
              </span>
              <span className="process-counts">
                {(["detection", "connection", "file", "activity"] as const).map((deed) =>
                  counts[deed] > 0 ? (
                    <span key={deed} className={`deed deed-${deed}`} title={t(`profile.counts.${deed}`, { count: counts[deed] })}>
                      <span aria-hidden="true">{t(`profile.short.${deed}`)}</span>
                      <span className="unseen">{t(`profile.counts.${deed}`, { count: counts[deed] })}</span>
                      <span aria-hidden="true">{counts[deed]}</span>
                    </span>
                  ) : null,
                )}
              </span>
              {id === current && (
                <Menu opened={opened === id} onChange={(open) => setOpened(open ? id : null)} position="bottom-end" withinPortal returnFocus>
                  <Menu.Target>
                    <ActionIcon size="xs" variant="subtle" color="gray" className="process-menu" aria-label={t("profile.menu")} tabIndex={-1}>
                      <Icon name="more" size={14} />
                    </ActionIcon>
                  </Menu.Target>
                  <Menu.Dropdown>{menu(node)}</Menu.Dropdown>
                </Menu>
              )}
              {one.children > 0 && (
                <button type="button" className="fold" tabIndex={-1} aria-hidden="true" onClick={(event) => {
                  event.stopPropagation();
                  fold(id, !one.folded);
                }}>
                  {one.folded ? `+${one.children}` : "−"}
                </button>
              )}
            </div>
          );
        })}
      </div>
    </div>
  );
}
