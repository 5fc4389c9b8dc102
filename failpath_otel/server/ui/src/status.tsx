// Each status has a shape, a colour and a word: none of them carries the meaning alone.
import type { JSX } from "preact";

export type Look = "success" | "error" | "running" | "stuck" | "skipped" | "missing" | "incomplete";

const SHAPES: Record<Look, JSX.Element> = {
  success: (
    <>
      <circle class="fill" cx="8" cy="8" r="7" />
      <path class="cut" d="M4.6 8.3l2.3 2.3 4.5-5" />
    </>
  ),
  error: (
    <>
      <path class="fill" d="M5 1h6l4 4v6l-4 4H5l-4-4V5z" />
      <path class="cut" d="M5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2" />
    </>
  ),
  stuck: (
    <>
      <path class="fill" d="M8 .8l7.6 13.9H.4z" />
      <path class="cut" d="M8 6v4M8 12.2v.6" />
    </>
  ),
  running: (
    <>
      <circle class="line" cx="8" cy="8" r="6.2" />
      <path class="fill" d="M6.3 4.8l5 3.2-5 3.2z" />
    </>
  ),
  skipped: (
    <>
      <circle class="line" cx="8" cy="8" r="6.2" />
      <path class="line" d="M4.6 8h6.8" />
    </>
  ),
  incomplete: (
    <>
      <circle class="line" cx="8" cy="8" r="6.2" />
      <path class="fill" d="M8 1.8a6.2 6.2 0 0 0 0 12.4z" />
    </>
  ),
  missing: <circle class="line dashed" cx="8" cy="8" r="6.2" />,
};

/** The mark alone, for SVG: draws into a square of 16 units. */
export function Mark({ look }: { look: Look }): JSX.Element {
  return <g class={`mark is-${look}`}>{SHAPES[look]}</g>;
}

export function Shape({ look, title }: { look: Look; title?: string }): JSX.Element {
  return (
    <svg class={`shape is-${look}`} viewBox="0 0 16 16" {...(title ? { role: "img", "aria-label": title } : { "aria-hidden": "true" })}>
      {SHAPES[look]}
    </svg>
  );
}

/** A run that failed stays one, also where another of its steps is stuck. */
export function lookOf(row: { status: string; stuck?: boolean }): Look {
  return row.stuck && row.status === "running" ? "stuck" : (row.status as Look);
}

export function Badge({ look }: { look: Look }): JSX.Element {
  return (
    <span class={`badge is-${look}`}>
      <Shape look={look} />
      <span>{look}</span>
    </span>
  );
}

export const STEP_LOOKS = ["success", "error", "running", "stuck", "skipped", "missing"] as const;

/** How many steps, or runs, have which status; what there is none of is left out. */
export function Counts({ counts }: { counts: Partial<Record<Look, number>> }): JSX.Element {
  return (
    <ul class="counts">
      {STEP_LOOKS.filter((look) => counts[look]).map((look) => (
        <li key={look} class={`is-${look}`} title={`${counts[look]} ${look}`}>
          <Shape look={look} />
          <span>
            {counts[look]}
            <span class="unseen"> {look}</span>
          </span>
        </li>
      ))}
    </ul>
  );
}

export const MISSING_REASONS: Record<string, string> = {
  never_instrumented: "no run of this flow has ever reported this step",
  upstream_error: "a step before it failed",
  passed_over: "a later step reported, this one did not",
  not_yet: "not yet: the run may still be under way",
  overdue: "it never came, and no step is running any more",
};
