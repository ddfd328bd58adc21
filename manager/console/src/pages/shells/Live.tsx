// An open shell: its terminal, who looks and who types, and what became of the connection.
import { Button } from "@mantine/core";
import { FitAddon } from "@xterm/addon-fit";
import type { Terminal } from "@xterm/xterm";
import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { queries } from "../../api/queries";
import type { Task } from "../../api/types";
import { Icon } from "../../parts/Icon";
import { Plain } from "../../parts/Plain";
import { bounded, terminal } from "./terminal";
import { pasted } from "./text";
import { Wire, type Told } from "./wire";

/** The size that it began with. */
const first = (task: Task): [number, number] => [Number(task.action.columns) || 80, Number(task.action.rows) || 24];

/** Where the browser refuses, its own menu copies. */
const copied = (text: string) => void navigator.clipboard?.writeText(text).catch(() => undefined);

/** Keys that are the page's and not the host's. Shift-Escape leaves the terminal: Tab is the shell's. */
function keys(screen: Terminal, writes: () => boolean, leave: () => void) {
  let leaving = false;
  screen.attachCustomKeyEventHandler((event) => {
    const copies = event.ctrlKey && event.shiftKey && event.code === "KeyC";
    const pastes = event.ctrlKey && event.shiftKey && event.code === "KeyV";
    const leaves = event.key === "Escape" && (event.shiftKey || leaving);
    if (event.type === "keydown") {
      if (copies) {
        event.preventDefault();
        if (screen.hasSelection()) copied(screen.getSelection());
      } else if (leaves) {
        event.preventDefault();
        leaving = true;
      }
    } else if (event.type === "keyup" && leaves && leaving) {
      // Not before: the emulator counts keys that are down.
      leaving = false;
      leave();
    }
    return writes() && !(copies || pastes || leaves);
  });
}

export default function Live({ task }: { task: Task }) {
  const { t } = useTranslation();
  const label = t("shells.terminal");
  const place = useRef<HTMLDivElement>(null);
  const after = useRef<HTMLButtonElement>(null);
  const screen = useRef<Terminal | null>(null);
  const [told, setTold] = useState<Told | null>(null);
  const [chosen, setChosen] = useState(false);
  const begun = useRef(first(task));
  useEffect(() => {
    const where = place.current;
    if (!where) return;
    const shown = terminal({ place: where, size: begun.current, label, typed: (text) => wire.type(text) });
    screen.current = shown;
    const fit = new FitAddon();
    shown.loadAddon(fit);
    let writes = false;
    const resize = () => {
      const wanted = fit.proposeDimensions();
      if (!writes || !wanted) return;
      const [columns, rows] = bounded(wanted.cols, wanted.rows);
      shown.resize(columns, rows);
      wire.resize(columns, rows);
    };
    const wire: Wire = new Wire(task.id, {
      shown: (text) => shown.write(text),
      anew: () => shown.reset(),
      told: (now) => {
        shown.options.disableStdin = !now.writes;
        // Who types gives the terminal the size of his window; whoever looks on sees it in that size.
        if (now.writes && !writes) {
          writes = true;
          resize();
          shown.focus();
        } else if (!now.writes && now.size) shown.resize(...bounded(...now.size));
        writes = now.writes;
        setTold(now);
        if (now.state === "closed") void queries.invalidateQueries({ queryKey: ["task", task.id] });
      },
    });
    const watch = new ResizeObserver(resize);
    watch.observe(where);
    const paste = (event: ClipboardEvent) => {
      event.preventDefault();
      event.stopPropagation();
      shown.paste(pasted(event.clipboardData?.getData("text/plain") ?? ""));
    };
    where.addEventListener("paste", paste, { capture: true });
    keys(shown, () => writes, () => after.current?.focus());
    shown.onSelectionChange(() => setChosen(shown.hasSelection()));
    return () => {
      watch.disconnect();
      where.removeEventListener("paste", paste, { capture: true });
      wire.leave();
      shown.dispose();
      where.replaceChildren();
      screen.current = null;
    };
  }, [task.id, label]);
  const copy = () => {
    copied(screen.current?.getSelection() ?? "");
    screen.current?.focus();
  };
  return (
    <section className="card screen-card" aria-label={label}>
      <State task={task} told={told} />
      <div className={told?.writes ? "screen types" : "screen"} ref={place} data-terminal />
      <footer className="screen-foot">
        <span className="dim">{t(told?.writes ? "shells.keys" : "shells.keysLook")}</span>
        <span className="grow" />
        <Button ref={after} size="compact-xs" variant="default" disabled={!chosen} onClick={copy}>
          {t("copy.do")}
        </Button>
      </footer>
    </section>
  );
}

function State({ task, told }: { task: Task; told: Told | null }) {
  const { t } = useTranslation();
  const state = told?.state ?? "joining";
  const others = (told?.people ?? []).filter((one) => !one.writes);
  const writer = (told?.people ?? []).find((one) => one.writes);
  return (
    <div className="screen-head">
      <span className="mark screen-recorded">
        <span aria-hidden="true">{"● "}</span>
        {t("shells.recorded")}
      </span>
      {state === "open" ? (
        <span role="status">
          {told?.writes ? t("shells.youType") : writer ? t("shells.types", { name: "" }) : t("shells.nobodyTypes")}
          {!told?.writes && writer && <Plain text={writer.name} most={60} />}
          {others.length > (told?.writes ? 0 : 1) && (
            <>
              {" · "}
              {t("shells.looks")} <Plain text={others.map((one) => one.name).join(", ")} most={200} />
            </>
          )}
        </span>
      ) : state === "closed" ? (
        <span role="status">
          {t("shells.closed")} <Plain text={told?.why ?? ""} most={300} />
        </span>
      ) : (
        <span role="alert" className="screen-lost">
          <Icon name="offline" size={14} /> {t(state === "lost" ? "shells.lost" : "shells.joining")}
        </span>
      )}
      <span className="grow" />
      {state !== "closed" && task.observed && (
        <small>
          <Plain text={task.observed} most={200} />
        </small>
      )}
    </div>
  );
}
