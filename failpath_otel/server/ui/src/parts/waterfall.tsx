// When each step of a run ran: a row a step, a bar an attempt, on one line of time from which idle times are cut short.
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { AttemptRow, RunDetail, StepRow } from "../api";
import { lookOf, MISSING_REASONS, Shape } from "../status";
import { count, duration, Id, millisOf, plain } from "../text";
import { inOrder, SHORT_REASONS, slowness, stepLook, took } from "./story";
import { briefly, offset, type Segment, shareAt, type Span, ticks, timeline } from "./timeline";

interface Props {
  run: RunDetail;
  now: number;
  selected: string | null;
  /** Leaves out steps that succeeded or were skipped, but for the chosen one. */
  hidden: boolean;
  hrefOf: (stepKey: string) => string;
  onSelect?: (stepKey: string) => void;
}

const LANE = 11;

export function Waterfall({ run, now, selected, hidden, hrefOf, onSelect }: Props): JSX.Element {
  const list = useRef<HTMLOListElement>(null);
  const begin = Math.min(millisOf(run.startedAt), ...run.steps.flatMap((step) => (step.startedAt === null ? [] : [millisOf(step.startedAt)])));
  const runs = run.steps.some((step) => step.status === "running");
  const spans = run.steps.flatMap((step) => step.attempts.map((attempt) => spanOf(attempt, begin, now)));
  const segments = useMemo(() => timeline(spans, runs), [JSON.stringify(spans), runs]);
  const rows = inOrder(run).filter((step) => !hidden || isTelling(step) || step.stepKey === selected);
  useSight(list, selected);

  const move = (event: KeyboardEvent) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by || !onSelect) return;
    event.preventDefault();
    const links = [...(list.current?.querySelectorAll<HTMLAnchorElement>("a") ?? [])];
    const index = links.indexOf(document.activeElement as HTMLAnchorElement) + by;
    links[index]?.focus();
    if (rows[index]) onSelect(rows[index].stepKey);
  };
  return (
    <div class="waterfall sheet">
      <div class="waterfall-plane" aria-hidden="true">
        <div class="waterfall-track">
          {ticks(segments).map(({ at, label }) => (
            <span key={at} class="waterfall-tick" style={{ left: percentage(at) }}>
              <span>{label}</span>
            </span>
          ))}
          {segments
            .filter(({ idle }) => idle)
            .map(({ from, to, left, right }) => (
              <span key={left} class="waterfall-gap" style={{ left: percentage(left), width: percentage(right - left) }} title={`${duration(to - from)} in which nothing ran, drawn shorter`}>
                <span>idle {briefly(to - from)}</span>
              </span>
            ))}
        </div>
      </div>
      <p class="unseen">{idleWords(segments)}</p>
      <ol class="waterfall-rows" ref={list} onKeyDown={move}>
        {rows.map((step) => (
          <Row key={step.stepKey} step={step} chosen={step.stepKey === selected} begin={begin} now={now} segments={segments} href={hrefOf(step.stepKey)} onSelect={onSelect} />
        ))}
      </ol>
    </div>
  );
}

/** What is still shown where steps that went well are hidden. */
export function isTelling(step: StepRow): boolean {
  return (step.status !== "success" && step.status !== "skipped") || step.attempts.some(({ status }) => status === "error");
}

interface RowProps {
  step: StepRow;
  chosen: boolean;
  begin: number;
  now: number;
  segments: readonly Segment[];
  href: string;
  onSelect: ((stepKey: string) => void) | undefined;
}

function Row({ step, chosen, begin, now, segments, href, onSelect }: RowProps): JSX.Element {
  const look = stepLook(step);
  const lanes = lanesOf(step.attempts, begin, now);
  const slow = step.status === "running" ? null : slowness(step, now);
  const choose = (event: MouseEvent) => {
    if (!onSelect || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    onSelect(step.stepKey);
  };
  return (
    <li class={chosen ? "is-chosen" : ""}>
      <a class="waterfall-row" href={href} onClick={choose} {...(chosen ? { "aria-current": "true" } : {})} {...(onSelect ? { draggable: false } : {})}>
        <span class="waterfall-name" title={plain(step.label === step.stepKey ? step.stepKey : `${step.label} (${step.stepKey})`)}>
          <span class={`is-${look}`}>
            <Shape look={look} />
          </span>
          <span class="waterfall-label">
            <Id text={step.label} />
          </span>
          <span class="unseen">{look}</span>
          {step.attempts.length > 1 && (
            <span class="tag" title={count(step.attempts.length, "attempt")}>
              {step.attempts.length}×
            </span>
          )}
        </span>
        <span class="waterfall-lanes" style={{ minHeight: `${Math.max(...lanes, 0) * LANE + 14}px` }}>
          {step.attempts.map((attempt, index) => (
            <Bar key={attempt.attempt} step={step} attempt={attempt} lane={lanes[index] ?? 0} begin={begin} now={now} segments={segments} />
          ))}
          {step.status === "missing" && (
            <span class="waterfall-reason is-missing" title={MISSING_REASONS[step.missingReason ?? ""]}>
              missing: {SHORT_REASONS[step.missingReason ?? ""] ?? "it did not report"}
            </span>
          )}
        </span>
        <span class="waterfall-took">
          {slow !== null && (
            <span class="is-stuck" title={`95 of 100 attempts take ${duration(step.p95Ms)} or less`}>
              {slow.toFixed(slow < 10 ? 1 : 0)}× p95{" "}
            </span>
          )}
          {step.status === "skipped" ? "skipped" : took(step, now)}
        </span>
      </a>
    </li>
  );
}

interface BarProps {
  step: StepRow;
  attempt: AttemptRow;
  lane: number;
  begin: number;
  now: number;
  segments: readonly Segment[];
}

function Bar({ step, attempt, lane, begin, now, segments }: BarProps): JSX.Element {
  const [from, to] = spanOf(attempt, begin, now);
  const [left, right] = [shareAt(segments, from), shareAt(segments, to)];
  const last = attempt === step.attempts.at(-1);
  const look = lookOf({ status: attempt.status, stuck: last && step.stuck });
  const words = [step.attempts.length > 1 ? `attempt ${attempt.attempt}` : "", look, attempt.status === "skipped" ? "" : duration(to - from), `after ${offset(from)}`];
  return (
    <span
      class={`lapse is-${look}`}
      style={{ left: percentage(left), width: percentage(right - left), top: `${lane * LANE}px` }}
      title={words.filter(Boolean).join(", ")}
    />
  );
}

/** In milliseconds since the begin. What runs lasts until now; what has no duration is a moment. */
function spanOf(attempt: AttemptRow, begin: number, now: number): Span {
  const from = millisOf(attempt.startedAt) - begin;
  if (attempt.status === "running") return [from, Math.max(from, now - begin)];
  return [from, attempt.endedAt === null ? from : Math.max(from, millisOf(attempt.endedAt) - begin)];
}

/** Attempts that ran at the same time lie below each other. */
function lanesOf(attempts: readonly AttemptRow[], begin: number, now: number): number[] {
  const ends: number[] = [];
  return attempts.map((attempt) => {
    const [from, to] = spanOf(attempt, begin, now);
    const free = ends.findIndex((end) => end <= from);
    const lane = free < 0 ? ends.length : free;
    ends[lane] = to;
    return lane;
  });
}

function idleWords(segments: readonly Segment[]): string {
  const gaps = segments.filter(({ idle }) => idle);
  return gaps.length === 0 ? "" : `Times in which nothing ran are drawn shorter: ${gaps.map(({ from, to }) => duration(to - from)).join(", ")}.`;
}

function percentage(share: number): string {
  return `${(share * 100).toFixed(3)}%`;
}

/** Another chosen step is scrolled to within the list; the page stays where it is. */
function useSight(list: { current: HTMLOListElement | null }, selected: string | null): void {
  useEffect(() => {
    const [box, row] = [list.current, list.current?.querySelector<HTMLElement>("li.is-chosen")];
    if (!box || !row) return;
    const [top, bottom] = [row.offsetTop - box.offsetTop, row.offsetTop - box.offsetTop + row.offsetHeight];
    if (top < box.scrollTop) box.scrollTop = top;
    else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
  }, [selected]);
}
