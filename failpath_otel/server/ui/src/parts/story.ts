// What a run's rows say, in the terms of its page: which step to open on, in which order to show them, why one takes so long. Pure.
import type { AttemptRow, RunDetail, StepRow } from "../api";
import { type Look, lookOf } from "../status";
import { duration, millisOf } from "../text";
import type { GraphNode } from "./graph";
import { offset } from "./timeline";

/** Words for missing reasons where there is little room. */
export const SHORT_REASONS: Record<string, string> = {
  never_instrumented: "never reported",
  upstream_error: "a step before failed",
  passed_over: "passed over",
  not_yet: "not yet",
  overdue: "overdue",
};

export function stepLook(step: StepRow): Look {
  return lookOf(step);
}

/** The step to open on: the first that failed, else one that is stuck, else one that runs. */
export function telling(run: RunDetail): StepRow | undefined {
  const first = run.firstError && run.steps.find(({ stepKey }) => stepKey === run.firstError?.stepKey);
  const byStart = inOrder(run);
  return first ?? byStart.find((step) => step.status === "error") ?? byStart.find((step) => step.stuck) ?? byStart.find((step) => step.status === "running");
}

/** By their starts; then those that never started, in the order of the flow. */
export function inOrder(run: RunDetail): StepRow[] {
  const started = run.steps.filter((step) => step.startedAt !== null);
  return [...started.toSorted((a, b) => millisOf(a.startedAt ?? "") - millisOf(b.startedAt ?? "")), ...run.steps.filter((step) => step.startedAt === null)];
}

/** For how long the last attempt has been running at `now`, in milliseconds; null where none runs. */
export function runningFor(step: StepRow, now: number): number | null {
  const last = step.attempts.at(-1);
  return last && step.status === "running" ? Math.max(0, now - millisOf(last.startedAt)) : null;
}

export function runDuration(run: RunDetail, now: number): number {
  return run.durationMs ?? Math.max(0, now - millisOf(run.startedAt));
}

export function servicesOf(run: RunDetail): string[] {
  return [...new Set(run.steps.flatMap((step) => step.attempts.map(({ service }) => service)))].filter((service) => service !== null);
}

export function metadataOf(row: StepRow | AttemptRow): [string, unknown][] {
  return Object.entries(row.metadata as Record<string, unknown>);
}

/** How a step, or an attempt of it, is written in a duration's place: a dash where it has none. */
export function took(step: StepRow, now: number): string {
  const running = runningFor(step, now);
  if (running !== null) return duration(running);
  return step.status === "missing" || step.status === "skipped" ? "" : duration(step.durationMs);
}

/** How much longer than usual a step took, where that is worth a word: twice what 95 of 100 attempts take, or more. */
export function slowness(step: StepRow, now: number): number | null {
  const taken = runningFor(step, now) ?? step.durationMs;
  if (taken === null || !step.stuckLearned || !step.p95Ms || taken < 10) return null;
  const times = taken / step.p95Ms;
  return times >= 2 ? times : null;
}

export function graphNode(step: StepRow, now: number): GraphNode {
  return { key: step.stepKey, label: step.label, look: stepLook(step), lines: graphLines(step, now) };
}

function graphLines(step: StepRow, now: number): string[] {
  const tries = step.attempts.length > 1 ? `${step.attempts.length} attempts` : "";
  const running = runningFor(step, now);
  if (step.status === "missing") return [SHORT_REASONS[step.missingReason ?? ""] ?? "missing"];
  if (step.status === "skipped") return ["skipped", step.skipReason ?? ""].filter(Boolean);
  if (running !== null) {
    const usual = !step.stuckLearned ? tries : `p95 ${duration(step.p95Ms)}`;
    return [`for ${duration(whole(running))}`, step.stuck ? `limit ${offset(step.stuckAfterMs)}` : usual].filter(Boolean);
  }
  const time = [duration(step.durationMs), tries].filter(Boolean).join(", ");
  return step.error ? [step.error.name, time] : [time];
}

/** Whole seconds of a time that counts up. */
export function whole(millis: number): number {
  return Math.floor(millis / 1000) * 1000;
}
