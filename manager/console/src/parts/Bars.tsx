// Alerts over time, by level. Drawing over a stretch of it (or its keys) chooses that stretch.
import { useRef, useState, type KeyboardEvent, type PointerEvent } from "react";
import { useTranslation } from "react-i18next";
import { LEVELS, type Overview } from "../api/types";
import { exact } from "./Time";

const WIDTH = 960;
const HEIGHT = 112;
const BASE = 1;

interface Props {
  overview: Overview;
  from: number;
  until: number;
  choose: (from: number, until: number) => void;
}

export function Bars({ overview, from, until, choose }: Props) {
  const { t, i18n } = useTranslation();
  const svg = useRef<SVGSVGElement>(null);
  const [brush, setBrush] = useState<[number, number] | null>(null);
  const size = overview.bar_ms;
  const first = Math.floor(from / size) * size;
  const count = Math.max(1, Math.ceil((until - first) / size));
  const bars = new Map<number, Map<string, number>>();
  for (const bar of overview.bars) {
    const at = Math.floor((bar.from_ms - first) / size);
    const levels = bars.get(at) ?? new Map<string, number>();
    levels.set(bar.level, bar.alerts);
    bars.set(at, levels);
  }
  const sums = [...bars.values()].map((levels) => [...levels.values()].reduce((a, b) => a + b, 0));
  const top = Math.max(1, ...sums);
  const total = sums.reduce((a, b) => a + b, 0);
  const step = WIDTH / count;
  const at = (event: PointerEvent) => {
    const box = svg.current?.getBoundingClientRect();
    const part = box && box.width > 0 ? (event.clientX - box.left) / box.width : 0;
    return Math.max(0, Math.min(count - 1, Math.floor(part * count)));
  };
  const done = () => {
    if (!brush) return;
    const [a, b] = [Math.min(...brush), Math.max(...brush)];
    setBrush(null);
    choose(first + a * size, first + (b + 1) * size);
  };
  const keys = (event: KeyboardEvent) => {
    const [start, end] = brush ?? [count - 1, count - 1];
    const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (by !== 0) {
      const next = Math.max(0, Math.min(count - 1, end + by));
      setBrush(event.shiftKey ? [start, next] : [next, next]);
    } else if (event.key === "Enter" && brush) done();
    else if (event.key === "Escape" && brush) setBrush(null);
    else return;
    event.preventDefault();
  };
  const ticks = [0, 0.25, 0.5, 0.75].map((part) => Math.floor(part * count));
  const label = (index: number) => {
    const day = size * count > 2 * 86_400_000;
    return new Intl.DateTimeFormat(i18n.language, day ? { month: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit" })
      .format(first + index * size);
  };
  return (
    <div className="chart">
    <svg ref={svg} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" className="bars" tabIndex={0} role="img"
      aria-label={t("overview.chart", { count: total })} onKeyDown={keys}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        setBrush([at(event), at(event)]);
      }}
      onPointerMove={(event) => brush && event.buttons === 1 && setBrush([brush[0], at(event)])}
      onPointerUp={done} onPointerCancel={() => setBrush(null)}>
      <line x1={0} x2={WIDTH} y1={HEIGHT - BASE} y2={HEIGHT - BASE} className="axis" vectorEffect="non-scaling-stroke" />
      {[...bars].map(([index, levels]) => {
        let y = HEIGHT - BASE;
        return [...LEVELS].reverse().map((level) => {
          const alerts = levels.get(level) ?? 0;
          if (alerts === 0) return null;
          const height = Math.max(2, (alerts / top) * (HEIGHT - BASE - 8));
          y -= height;
          return (
            <rect key={`${index}${level}`} x={index * step + step * 0.1} width={step * 0.8} y={y} height={height} className={`fill-${level}`}>
              <title>{`${exact(first + index * size, i18n.language)}: ${t(`level.${level}`)} ${alerts}`}</title>
            </rect>
          );
        });
      })}
      {brush && (
        <rect x={Math.min(...brush) * step} width={(Math.abs(brush[1] - brush[0]) + 1) * step} y={0} height={HEIGHT - BASE} className="brush" />
      )}
    </svg>
    <div className="ticks" aria-hidden="true">
      {ticks.map((index) => (
        <span key={index}>{label(index)}</span>
      ))}
    </div>
    </div>
  );
}
