// Times of a run → places on a line of 0 to 1, on which long times without any work are shortened and said to be so. Pure.
export interface Segment {
  /** Milliseconds since the start of the run. */
  from: number;
  to: number;
  /** Shares of the line. */
  left: number;
  right: number;
  /** True where nothing ran; such a segment is shorter than its time. */
  idle: boolean;
  /** True where work goes on after an idle time. */
  idleBefore: boolean;
}

export type Span = readonly [from: number, to: number];

export interface Tick {
  at: number;
  label: string;
}

/** Idle times are shortened that are longer than this share of the time in which something ran, the longest first. */
const IDLE_SHARE = 0.4;
const MOST_GAPS = 8;
/** Of the line, between two times that are written. */
const APART = 0.15;
const MOST_TICKS = 12;
const GAP_WIDTH = 0.07;
const ALL_GAPS = 0.45;

/** The line of a run whose attempts ran in these spans. `open`: it goes on, so there is room after its end. */
export function timeline(spans: readonly Span[], open: boolean): Segment[] {
  const busy = union(spans);
  const worked = busy.reduce((sum, [from, to]) => sum + to - from, 0);
  const gaps = busy
    .slice(1)
    .map(([to], index): Span => [busy[index]?.[1] ?? 0, to])
    .filter(([from, to]) => to - from > IDLE_SHARE * worked && to - from > 1)
    .toSorted((a, b) => b[1] - b[0] - (a[1] - a[0]))
    .slice(0, MOST_GAPS)
    .toSorted((a, b) => a[0] - b[0]);
  const last = Math.max(0, busy.at(-1)?.[1] ?? 0);
  const begin = gaps.at(-1)?.[1] ?? 0;
  // The line ends at a round time, so that what runs grows while all else stays where it is.
  const end = open ? begin + rounded(last - begin) : Math.max(last, begin + 0.001);
  const idle = gaps.reduce((sum, [from, to]) => sum + to - from, 0);
  const gapWidth = Math.min(GAP_WIDTH, ALL_GAPS / Math.max(1, gaps.length));
  const perMilli = (1 - gapWidth * gaps.length) / Math.max(end - idle, 0.001);
  const segments: Segment[] = [];
  let [at, share] = [0, 0];
  const add = (to: number, width: number, isIdle: boolean) => {
    segments.push({ from: at, to, left: share, right: share + width, idle: isIdle, idleBefore: segments.at(-1)?.idle ?? false });
    [at, share] = [to, share + width];
  };
  for (const [from, to] of gaps) {
    add(from, (from - at) * perMilli, false);
    add(to, gapWidth, true);
  }
  add(end, 1 - share, false);
  return segments;
}

/** Where a time lies on the line. */
export function shareAt(segments: readonly Segment[], time: number): number {
  const found = segments.find(({ to }) => time <= to) ?? segments.at(-1);
  if (!found) return 0;
  const part = found.to > found.from ? (time - found.from) / (found.to - found.from) : 0;
  return Math.min(1, Math.max(0, found.left + part * (found.right - found.left)));
}

/** Times to write along the line: where each stretch begins, and round ones between, none so near another that they would touch. */
export function ticks(segments: readonly Segment[]): Tick[] {
  const worked = segments.filter(({ idle }) => !idle);
  const whole = worked.reduce((sum, { from, to }) => sum + to - from, 0);
  const wide = worked.reduce((sum, { left, right }) => sum + right - left, 0);
  const step = rounded((whole / Math.max(wide, 0.01)) * APART);
  const found: Tick[] = [{ at: 0, label: "0" }];
  const fits = (at: number) => at - (found.at(-1)?.at ?? 0) > APART * 0.95;
  for (const segment of worked) {
    if (segment.idleBefore) {
      // Where work goes on matters more than the round time before it.
      while (found.length > 1 && !fits(segment.left)) found.pop();
      if (fits(segment.left)) found.push({ at: segment.left, label: offset(segment.from) });
    }
    for (let time = (Math.floor(segment.from / step) + 1) * step; time < segment.to && found.length < MOST_TICKS; time += step) {
      const at = shareAt(segments, time);
      if (fits(at) && 1 - at > APART / 2) found.push({ at, label: offset(time) });
    }
  }
  return found;
}

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
/** Round times of a second and more: halves and quarters of minutes and hours. */
const ROUND = [1, 2, 3, 5, 10, 15, 30].flatMap((n) => [n * SECOND, n * MINUTE]).concat([1, 2, 3, 6, 12, 24, 48, 96].map((n) => n * HOUR)).toSorted((a, b) => a - b);

/** The least round time that is not smaller. */
function rounded(time: number): number {
  const least = Math.max(time, 0.001) * 0.9999;
  const known = least > SECOND / 2 ? ROUND.find((round) => round >= least) : undefined;
  if (known !== undefined) return known;
  const power = 10 ** Math.floor(Math.log10(least));
  return ([1, 2, 3, 5, 10].find((n) => n * power >= least) ?? 10) * power;
}

/** A time since the start, as exact as an axis needs. */
export function offset(millis: number): string {
  if (millis === 0) return "0";
  if (millis < 1000) return `${Number(millis.toPrecision(3))} ms`;
  if (millis < 60_000) return `${Number((millis / 1000).toPrecision(4))} s`;
  const seconds = millis / 1000;
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  const rest = Math.floor(seconds % 60);
  return [hours && `${hours} h`, minutes && `${minutes} min`, !hours && rest && `${rest} s`].filter(Boolean).join(" ");
}

/** How long, in one unit: for where there is hardly any room. */
export function briefly(millis: number): string {
  if (millis < 59_500) return offset(Number(millis.toPrecision(2)));
  if (millis < 59.5 * 60_000) return `${Math.round(millis / 60_000)} min`;
  if (millis < 47.5 * 3_600_000) return `${Number((millis / 3_600_000).toPrecision(2))} h`;
  return `${Math.round(millis / 86_400_000)} d`;
}

function union(spans: readonly Span[]): [number, number][] {
  const merged: [number, number][] = [];
  for (const [from, to] of spans.toSorted((a, b) => a[0] - b[0])) {
    const before = merged.at(-1);
    if (before && from <= before[1]) before[1] = Math.max(before[1], to);
    else merged.push([from, Math.max(from, to)]);
  }
  return merged;
}
