// Plays a recording: at another speed, from another moment, without its pauses. It shows what was
// typed beside what was shown, and what the manager has to say of it.
import { Button, SegmentedControl, Slider, Switch } from "@mantine/core";
import type { Terminal } from "@xterm/xterm";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { Plain } from "../../parts/Plain";
import { passed, sizeOf, times, typed, type Cast } from "./cast";
import { bounded, terminal } from "./terminal";

const SPEEDS = ["1", "2", "4", "8"];
/** Characters that the emulator gets at once. */
const PART = 256 * 1024;
/** Marks of the manager that are listed. */
const MARKS = 50;

const clock = (seconds: number) => {
  const whole = Math.floor(seconds);
  const pad = (number: number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return `${hours ? `${hours}:` : ""}${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)}`;
};

/** Shows a recording up to a moment, in order; going back begins anew. */
class Show {
  private done = 0;
  private target = 0;
  private busy = false;
  private anew = false;

  constructor(
    private readonly screen: Terminal,
    private readonly cast: Cast,
  ) {}

  get count() {
    return this.target;
  }

  to(count: number) {
    this.anew ||= count < this.done;
    this.target = count;
    this.go();
  }

  private go() {
    // What the emulator has not read yet would come after the reset.
    if (this.busy) return;
    if (this.anew) {
      this.anew = false;
      this.done = 0;
      this.screen.reset();
      this.screen.resize(...bounded(...this.cast.size));
    }
    let text = "";
    for (; this.done < this.target && text.length < PART; this.done += 1) {
      const moment = this.cast.moments[this.done];
      const size = moment?.kind === "r" ? sizeOf(moment.text) : null;
      if (size && text !== "") break;
      if (size) this.screen.resize(...bounded(...size));
      else if (moment?.kind === "o") text += moment.text;
    }
    if (text === "") return;
    this.busy = true;
    this.screen.write(text, () => {
      this.busy = false;
      this.go();
    });
  }
}

export default function Player({ cast }: { cast: Cast }) {
  const { t } = useTranslation();
  const label = t("shells.playback");
  const place = useRef<HTMLDivElement>(null);
  const shown = useRef<Show | null>(null);
  const [skip, setSkip] = useState(true);
  const [speed, setSpeed] = useState("1");
  const [playing, setPlaying] = useState(true);
  const [at, setAt] = useState(0);
  const now = useRef(0);
  const line = useMemo(() => times(cast, skip), [cast, skip]);
  const end = line.at(-1) ?? 0;
  const marks = useMemo(
    () => cast.moments.flatMap((moment, index) => (moment.kind === "m" ? [{ index, text: moment.text }] : [])).slice(0, MARKS),
    [cast],
  );

  useEffect(() => {
    const where = place.current;
    if (!where) return;
    const made = terminal({ place: where, size: cast.size, label });
    shown.current = new Show(made, cast);
    return () => {
      shown.current = null;
      made.dispose();
      where.replaceChildren();
    };
  }, [cast, label]);

  const to = useCallback(
    (time: number) => {
      now.current = Math.max(0, Math.min(end, time));
      setAt(now.current);
      shown.current?.to(passed(line, now.current));
    },
    [end, line],
  );

  // Without its pauses the same moment has another time.
  const before = useRef(line);
  useEffect(() => {
    if (before.current === line) return;
    before.current = line;
    now.current = line[(shown.current?.count ?? 0) - 1] ?? 0;
    setAt(now.current);
  }, [line]);

  useEffect(() => {
    if (!playing) return;
    let frame = 0;
    let last = performance.now();
    const step = (time: number) => {
      to(now.current + (Math.max(0, time - last) / 1000) * Number(speed));
      last = time;
      if (now.current >= end) setPlaying(false);
      else frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }, [playing, speed, end, to]);

  const toggle = () => {
    if (!playing && now.current >= end) to(0);
    setPlaying(!playing);
  };
  const said = typed(cast, passed(line, at));
  return (
    <section className="card screen-card" aria-label={label}>
      <div className="screen-head">
        <Button size="compact-sm" onClick={toggle}>
          {t(playing ? "shells.pause" : at >= end && end > 0 ? "shells.again" : "shells.play")}
        </Button>
        <span className="number nowrap">
          {clock(at)}
          {" / "}
          {clock(end)}
        </span>
        <Slider className="grow" value={at} min={0} max={Math.max(end, 0.001)} step={1} label={clock} thumbLabel={t("shells.position")} onChange={to} />
        <SegmentedControl size="xs" value={speed} onChange={setSpeed} aria-label={t("shells.speed")}
          data={SPEEDS.map((value) => ({ value, label: t("shells.times", { count: Number(value) }) }))} />
        <Switch size="xs" label={t("shells.skip")} checked={skip} onChange={(event) => setSkip(event.currentTarget.checked)} />
      </div>
      <div className="screen played" ref={place} data-terminal />
      <footer className="screen-foot">
        <span className="dim">{t("shells.typed")}</span>
        <span className="grow" data-typed>
          <Plain text={said} most={200} mono />
        </span>
      </footer>
      {marks.length > 0 && (
        <ul className="list">
          {marks.map(({ index, text }) => (
            <li key={index}>
              <button type="button" className="entry" onClick={() => to(line[index] ?? 0)}>
                <span className="number">{clock(line[index] ?? 0)}</span>
                <Plain text={text} most={300} />
              </button>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
