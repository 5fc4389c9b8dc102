// Values as they are shown: text from outside is inert and its invisible characters are spelled out; times and durations read well.
import type { ComponentChildren, JSX } from "preact";
import { useTick } from "./data";
import { useUtc } from "./preferences";

// Control characters, bidirectional controls and invisible characters, by which one text can pass for another. The zero
// width joiners stay: Persian words and many emoji are spelled with them.
const DECEPTIVE =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

function spelled(character: string): string {
  const named: Record<string, string> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
  const code = character.charCodeAt(0);
  return named[character] ?? (code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`);
}

function marked(text: string, keep = ""): ComponentChildren[] {
  const out: ComponentChildren[] = [];
  let end = 0;
  for (const found of text.matchAll(DECEPTIVE)) {
    if (keep.includes(found[0])) continue;
    out.push(text.slice(end, found.index), <span class="invisible">{spelled(found[0])}</span>);
    end = found.index + found[0].length;
  }
  out.push(text.slice(end));
  return out;
}

function Spaces({ n }: { n: number }): JSX.Element | null {
  return n ? <span class="invisible">{"\\x20".repeat(n)}</span> : null;
}

/** An id or a label on one line: isolated from the text around it. */
export function Id({ text }: { text: string }): JSX.Element {
  const core = text.replace(/^ +| +$/g, "");
  const before = text.length - text.replace(/^ +/, "").length;
  const after = core ? text.length - text.replace(/ +$/, "").length : 0;
  return (
    <bdi class="id">
      <Spaces n={before} />
      {marked(core)}
      <Spaces n={after} />
    </bdi>
  );
}

/** Text of several lines: line breaks and tabs stay. */
export function Prose({ text }: { text: string }): JSX.Element {
  return <bdi>{marked(text.replaceAll("\r\n", "\n"), "\n\t")}</bdi>;
}

/** One line without markup: for titles and labels. */
export function plain(text: string): string {
  return text.replace(DECEPTIVE, spelled);
}

/** A metadata value: text as it is, everything else as JSON. */
export function Value({ item }: { item: unknown }): JSX.Element {
  if (typeof item === "string") return <Prose text={item} />;
  const spread = typeof item === "object" && item !== null && Object.keys(item).length > 0;
  return <Prose text={JSON.stringify(item, null, spread ? 2 : 0)} />;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Milliseconds in the unit that reads best, and a dash where they are not known. */
export function duration(millis: number | null | undefined): string {
  if (millis === null || millis === undefined) return "–";
  if (millis < 100) return `${millis.toFixed(1)} ms`;
  if (millis < 999.5) return `${millis.toFixed(0)} ms`;
  if (millis < MINUTE) return `${(millis / 1000).toFixed(2)} s`;
  if (millis < HOUR) return `${Math.floor(millis / MINUTE)} min ${Math.floor((millis % MINUTE) / 1000)} s`;
  if (millis < DAY) return `${Math.floor(millis / HOUR)} h ${Math.floor((millis % HOUR) / MINUTE)} min`;
  return `${Math.floor(millis / DAY)} d ${Math.floor((millis % DAY) / HOUR)} h`;
}

/** Microseconds of an RFC 3339 time, beyond what a Date keeps, as milliseconds since the epoch. */
export function millisOf(time: string): number {
  const [, fraction = ""] = /\.(\d+)/.exec(time) ?? [];
  return Math.floor(Date.parse(time) / 1000) * 1000 + Number(`0.${fraction || "0"}`) * 1000;
}

function two(n: number): string {
  return String(n).padStart(2, "0");
}

export function moment(time: string, utc: boolean): { date: string; clock: string } {
  const at = new Date(time);
  const millis = String(at.getUTCMilliseconds()).padStart(3, "0");
  if (utc) return { date: time.slice(0, 10), clock: time.slice(11, 23) };
  return {
    date: `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`,
    clock: `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${millis}`,
  };
}

/** A time in the reader's zone or in UTC, as they chose. */
export function Moment({ time }: { time: string }): JSX.Element {
  const { date, clock } = moment(time, useUtc());
  return (
    <time dateTime={time} title={time}>
      {date} <span class="clock">{clock}</span>
    </time>
  );
}

function agoText(time: string): string {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  if (seconds < 1.5) return "just now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} days ago`;
}

/** How long ago, with the time itself as a title. */
export function Ago({ time }: { time: string }): JSX.Element {
  useTick(1000);
  return (
    <time dateTime={time} title={time}>
      {agoText(time)}
    </time>
  );
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

export function percent(part: number, whole: number): string {
  if (whole === 0) return "–";
  const share = (100 * part) / whole;
  // Never 100 % while one failed, never 0 % while one did not.
  if (share > 99 && share < 100) return `${(Math.floor(share * 10) / 10).toFixed(1)} %`;
  if (share > 0 && share < 1) return `${(Math.ceil(share * 10) / 10).toFixed(1)} %`;
  return `${share.toFixed(0)} %`;
}
