// What differs between two runs of a flow, step by step. Durations count only where they tell something. Pure.
import type { RunDetail, StepRow } from "../api";
import { type Look } from "../status";
import { metadataOf, stepLook } from "./story";

export interface MetadataChange {
  key: string;
  /** Undefined where the run has no such key. */
  other: unknown;
  here: unknown;
}

export interface StepDifference {
  stepKey: string;
  label: string;
  /** Null where the run's flow did not have the step. */
  other: StepRow | null;
  here: StepRow | null;
  looks: [other: Look | null, here: Look | null] | null;
  /** This run's duration as a multiple of the other's. */
  ratio: number | null;
  attempts: [other: number, here: number] | null;
  services: [other: string | null, here: string | null] | null;
  error: boolean;
  metadata: MetadataChange[];
}

/** Faster or slower by less than this is how runs are. */
const LEAST_RATIO = 1.5;
const LEAST_MS = 10;

/** The steps that differ, in this run's order, and how many do not. */
export function differences(other: RunDetail, here: RunDetail): { steps: StepDifference[]; same: number } {
  const keys = [...new Set([...here.steps, ...other.steps].map(({ stepKey }) => stepKey))];
  const find = (run: RunDetail, key: string) => run.steps.find(({ stepKey }) => stepKey === key) ?? null;
  const all = keys.map((key) => difference(key, find(other, key), find(here, key)));
  const steps = all.filter((step) => step.looks ?? step.ratio ?? step.attempts ?? step.services ?? (step.error || step.metadata.length > 0 ? step : null));
  return { steps, same: all.length - steps.length };
}

function difference(stepKey: string, other: StepRow | null, here: StepRow | null): StepDifference {
  const looks: [Look | null, Look | null] = [other && stepLook(other), here && stepLook(here)];
  const ran = (step: StepRow | null) => step !== null && step.attempts.length > 0;
  const both = ran(other) && ran(here);
  const services: [string | null, string | null] = [other?.service ?? null, here?.service ?? null];
  const attempts: [number, number] = [other?.attempts.length ?? 0, here?.attempts.length ?? 0];
  return {
    stepKey,
    label: here?.label ?? other?.label ?? stepKey,
    other,
    here,
    looks: looks[0] === looks[1] ? null : looks,
    ratio: durationRatio(other, here),
    attempts: both && attempts[0] !== attempts[1] ? attempts : null,
    services: both && services[0] !== services[1] ? services : null,
    error: (other?.error?.name ?? null) !== (here?.error?.name ?? null) || (other?.error?.message ?? null) !== (here?.error?.message ?? null),
    metadata: both ? metadataChanges(other, here) : [],
  };
}

/** Null where the durations are alike, not known, or both such as most attempts take. */
function durationRatio(other: StepRow | null, here: StepRow | null): number | null {
  const [before, now] = [other?.durationMs ?? null, here?.durationMs ?? null];
  if (before === null || now === null || Math.abs(now - before) < LEAST_MS) return null;
  const usual = here?.stuckLearned ? here.p95Ms : null;
  if (usual !== null && Math.max(before, now) <= usual) return null;
  const ratio = now / Math.max(before, 0.001);
  return ratio >= LEAST_RATIO || ratio <= 1 / LEAST_RATIO ? ratio : null;
}

function metadataChanges(other: StepRow | null, here: StepRow | null): MetadataChange[] {
  const [before, now] = [new Map(other ? metadataOf(other) : []), new Map(here ? metadataOf(here) : [])];
  return [...new Set([...now.keys(), ...before.keys()])]
    .filter((key) => before.has(key) !== now.has(key) || canonical(before.get(key)) !== canonical(now.get(key)))
    .map((key) => ({ key, other: before.get(key), here: now.get(key) }));
}

/** The same text for the same value, in whatever order its keys were written. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    part !== null && typeof part === "object" && !Array.isArray(part) ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1))) : part,
  ) ?? "";
}
