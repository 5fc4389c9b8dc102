// How long the runs of a window took, over time: one mark a run, on a scale of powers of ten.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { GridRun } from "../api";
import { useUtc } from "../preferences";
import { lookOf } from "../status";
import { duration, millisOf, moment, plain } from "../text";
import { navigate, runLink } from "../url";

const HEIGHT = 190;
const LEFT = 64;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 26;

interface Point {
  run: GridRun;
  x: number;
  y: number;
}

export function Durations({ flow, runs }: { flow: string; runs: readonly GridRun[] }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(800);
  const [near, setNear] = useState<Point | null>(null);
  const utc = useUtc();
  useEffect(() => {
    const observer = new ResizeObserver(() => box.current && setWidth(box.current.clientWidth));
    if (box.current) observer.observe(box.current);
    return () => observer.disconnect();
  }, []);

  const timed = runs.flatMap((run) => (run.durationMs === null ? [] : [{ run, at: millisOf(run.startedAt), ms: Math.max(run.durationMs, 0.05) }]));
  if (timed.length < 2) return <p class="quiet">Two runs that ended are needed for this.</p>;
  const ats = timed.map(({ at }) => at);
  const [first, last] = [Math.min(...ats), Math.max(...ats)];
  const logs = timed.map(({ ms }) => Math.log10(ms));
  // At least one power of ten high, so that small differences look small.
  const middle = (Math.min(...logs) + Math.max(...logs)) / 2;
  const low = Math.min(Math.min(...logs) - 0.1, middle - 0.5);
  const high = Math.max(Math.max(...logs) + 0.1, middle + 0.5);
  const x = (at: number) => LEFT + ((width - LEFT - RIGHT) * (at - first)) / Math.max(1, last - first);
  const y = (ms: number) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (Math.log10(ms) - low) / (high - low));
  const points = timed.map(({ run, at, ms }) => ({ run, x: x(at), y: y(ms) }));
  const sorted = timed.map(({ ms }) => ms).toSorted((a, b) => a - b);
  const share = (part: number) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? 0;

  const find = (event: MouseEvent): Point | null => {
    const area = (event.currentTarget as Element).getBoundingClientRect();
    const [px, py] = [event.clientX - area.left, event.clientY - area.top];
    const distance = (point: Point) => Math.hypot(point.x - px, point.y - py);
    const best = points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
    return distance(best) < 24 ? best : null;
  };
  const shown = near && points.find(({ run }) => run.runId === near.run.runId);
  return (
    <div class="scatter sheet" ref={box}>
      <svg
        width={width}
        height={HEIGHT}
        role="img"
        aria-label={`Durations of ${timed.length} runs: half within ${duration(share(0.5))}, 95 of 100 within ${duration(share(0.95))}`}
        class={near ? "pointing" : ""}
        onMouseMove={(event) => setNear(find(event))}
        onMouseLeave={() => setNear(null)}
        onClick={(event) => {
          const point = find(event);
          if (point) navigate(runLink(flow, point.run.runId));
        }}
      >
        {ticks(low, high).map((ms) => (
          <g key={ms} class="axis">
            <path d={`M${LEFT} ${y(ms)}H${width - RIGHT}`} />
            <text x={LEFT - 8} y={y(ms)} dy=".35em" text-anchor="end">
              {short(ms)}
            </text>
          </g>
        ))}
        {[0.5, 0.95].map((part) => (
          <g key={part} class="level">
            <path d={`M${LEFT} ${y(share(part))}H${width - RIGHT}`} />
            <text x={width - RIGHT} y={y(share(part)) - 4} text-anchor="end">
              p{part * 100} {duration(share(part))}
            </text>
          </g>
        ))}
        {points.map((point) => (
          <Dot key={point.run.runId} point={point} />
        ))}
        {shown && <circle class="ring" cx={shown.x} cy={shown.y} r="8" />}
        <text class="axis-time" x={LEFT} y={HEIGHT - 8}>
          {label(first, last, first, utc)}
        </text>
        <text class="axis-time" x={width - RIGHT} y={HEIGHT - 8} text-anchor="end">
          {label(first, last, last, utc)}
        </text>
      </svg>
      <p class="grid-detail">
        {shown ? (
          <>
            <code>{plain(shown.run.runId)}</code> <strong class={`is-${lookOf(shown.run)}`}>{lookOf(shown.run)}</strong> {duration(shown.run.durationMs)}{" "}
            <span class="quiet">{moment(shown.run.startedAt, utc).clock}</span>
          </>
        ) : (
          <span class="quiet">One mark a run: a disc succeeded, a cross failed, a ring is incomplete.</span>
        )}
      </p>
    </div>
  );
}

function Dot({ point: { run, x, y } }: { point: Point }): JSX.Element {
  const look = lookOf(run);
  if (look === "error") return <path class="dot is-error" d={`M${x - 3.5} ${y - 3.5}l7 7M${x + 3.5} ${y - 3.5}l-7 7`} />;
  return <circle class={`dot is-${look}${look === "success" ? " full" : ""}`} cx={x} cy={y} r="3" />;
}

/** Powers of ten, with 2 and 5 between them where there is room. */
function ticks(low: number, high: number): number[] {
  const parts = high - low < 1.6 ? [1, 2, 5] : [1];
  const found: number[] = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    for (const part of parts) {
      const log = power + Math.log10(part);
      if (log >= low && log <= high) found.push(part * 10 ** power);
    }
  }
  return found;
}

function short(ms: number): string {
  if (ms < 1) return `${Number(ms.toPrecision(1))} ms`;
  if (ms < 1000) return `${ms} ms`;
  if (ms < 100_000) return `${ms / 1000} s`;
  return duration(ms);
}

function label(first: number, last: number, at: number, utc: boolean): string {
  const { date, clock } = moment(new Date(at).toISOString(), utc);
  return last - first > 20 * 3_600_000 ? `${date} ${clock.slice(0, 5)}` : clock.slice(0, 8);
}
