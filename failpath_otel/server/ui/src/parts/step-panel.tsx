// All that is known of one step of a run: why it failed, for how long it ran, its metadata, each attempt.
import type { JSX } from "preact";
import type { AttemptRow, StepRow } from "../api";
import { type Look, lookOf, MISSING_REASONS, Shape } from "../status";
import { count, duration, Id, millisOf, Moment, Prose, Value } from "../text";
import { Copy } from "./copy";
import { partsOf } from "./stack";
import { metadataOf, runningFor, slowness, stepLook, whole } from "./story";
import { offset } from "./timeline";

interface Props {
  step: StepRow;
  now: number;
  /** When the run began, for times since then. */
  begin: number;
  /** Link to a trace with places for ids; null where none is set. */
  traceUrl: string | null;
  /** For paper and files: nothing folded, no buttons. */
  whole?: boolean;
}

export function StepPanel({ step, now, begin, traceUrl, whole: all = false }: Props): JSX.Element {
  const look = stepLook(step);
  const last = step.attempts.at(-1);
  return (
    <>
      <header class="panel-head">
        <h2>
          <span class={`is-${look}`}>
            <Shape look={look} />
          </span>{" "}
          <Id text={step.label} />
        </h2>
        {step.label !== step.stepKey && (
          <span class="key">
            <Id text={step.stepKey} />
          </span>
        )}
        {step.discovered && (
          <span class="tag" title="flows.json does not declare this step">
            discovered
          </span>
        )}
        <strong class={`panel-status is-${look}`}>{look}</strong>
      </header>
      <Why step={step} now={now} />
      {step.error && <ErrorText error={step.error} whole={all} />}
      {last && <Facts step={step} last={last} now={now} begin={begin} traceUrl={traceUrl} whole={all} />}
      {last && <Metadata row={step} whole={all} />}
      {step.attempts.length > 1 && <Attempts step={step} now={now} begin={begin} traceUrl={traceUrl} whole={all} />}
    </>
  );
}

/** In a sentence, what the status alone does not say. */
function Why({ step, now }: { step: StepRow; now: number }): JSX.Element | null {
  const running = runningFor(step, now);
  if (step.status === "missing") {
    const reason = step.missingReason ?? "";
    return (
      <p class="panel-why">
        It did not report: {MISSING_REASONS[reason] ?? "the reason is not known"}.
        {reason === "never_instrumented" && (
          <>
            {" "}
            Is it called with the key{" "}
            <code>
              <Id text={step.stepKey} />
            </code>
            ?
          </>
        )}
      </p>
    );
  }
  if (step.status === "skipped") {
    return <p class="panel-why">{step.skipReason ? <>Skipped: {<Prose text={step.skipReason} />}</> : "It was skipped; no reason was given."}</p>;
  }
  if (running === null) return null;
  return (
    <p class={step.stuck ? "panel-why is-stuck" : "panel-why"}>
      It has been running for {duration(whole(running))}
      {step.stuckLearned && <>; 95 of 100 attempts take {duration(step.p95Ms)} or less</>}. <Limit step={step} />
    </p>
  );
}

export function Limit({ step }: { step: StepRow }): JSX.Element {
  const from = step.stuckLearned ? "learned from its history" : "the default, until enough attempts are known";
  return (
    <>
      {step.stuck ? "It counts as stuck" : "It will count as stuck"} after {offset(step.stuckAfterMs)} ({from}).
    </>
  );
}

type ErrorRow = NonNullable<StepRow["error"]>;

function ErrorText({ error, whole: all }: { error: ErrorRow; whole: boolean }): JSX.Element {
  const text = [error.message ? `${error.name}: ${error.message}` : error.name, error.stack].filter(Boolean).join("\n\n");
  return (
    <div class="failure">
      <p class="failure-head">
        <strong>
          <Id text={error.name} />
        </strong>
        {!all && <Copy text={text} what="error" />}
      </p>
      {error.message && (
        <p class="failure-message">
          <Prose text={error.message} />
        </p>
      )}
      {error.stack ? <Stack stack={error.stack} whole={all} /> : <p class="quiet">It came without a stack.</p>}
    </div>
  );
}

function Stack({ stack, whole: all }: { stack: string; whole: boolean }): JSX.Element {
  const parts = all ? [{ lines: stack.split("\n"), foreign: false }] : partsOf(stack);
  return (
    <div class="stack" tabIndex={all ? undefined : 0} role="group" aria-label="Stack">
      {parts.map(({ lines, foreign }, index) =>
        foreign ? (
          <details key={index}>
            <summary>{count(lines.length, "line")} of libraries</summary>
            <pre>
              <Prose text={lines.join("\n")} />
            </pre>
          </details>
        ) : (
          <pre key={index}>
            <Prose text={lines.join("\n")} />
          </pre>
        ),
      )}
    </div>
  );
}

interface FactsProps extends Required<Omit<Props, "step">> {
  step: StepRow;
  last: AttemptRow;
}

function Facts({ step, last, now, begin, traceUrl, whole: all }: FactsProps): JSX.Element {
  const running = runningFor(step, now);
  const slow = slowness(step, now);
  return (
    <dl class="panel-facts">
      {step.service !== null && (
        <div>
          <dt>Service</dt>
          <dd>
            <Id text={step.service} />
          </dd>
        </div>
      )}
      <div>
        <dt>Started</dt>
        <dd>
          <Moment time={step.startedAt ?? last.startedAt} /> <span class="quiet">+{offset(Math.max(0, millisOf(step.startedAt ?? last.startedAt) - begin))}</span>
        </dd>
      </div>
      {step.endedAt !== null && step.status !== "skipped" && (
        <div>
          <dt>Ended</dt>
          <dd>
            <Moment time={step.endedAt} />
          </dd>
        </div>
      )}
      {step.status !== "skipped" && (
        <div>
          <dt>{step.attempts.length > 1 ? "Last took" : "Duration"}</dt>
          <dd>
            {running === null ? duration(step.durationMs) : `${duration(whole(running))} so far`}
            {slow !== null && <strong class="is-stuck"> {slow.toFixed(slow < 10 ? 1 : 0)}× p95</strong>}
            {step.stuckLearned && (
              <span class="quiet">
                {" "}
                usually {duration(step.p50Ms)}, p95 {duration(step.p95Ms)}
              </span>
            )}
          </dd>
        </div>
      )}
      <Trace row={step} traceUrl={traceUrl} whole={all} />
    </dl>
  );
}

export function traceLink(template: string | null, row: { traceId: string | null; spanId: string | null }): string | null {
  if (!template || !row.traceId) return null;
  return template.replaceAll("{trace_id}", encodeURIComponent(row.traceId)).replaceAll("{span_id}", encodeURIComponent(row.spanId ?? ""));
}

function Trace({ row, traceUrl, whole: all }: { row: StepRow | AttemptRow; traceUrl: string | null; whole: boolean }): JSX.Element {
  const link = traceLink(traceUrl, row);
  return (
    <>
      {row.traceId !== null && (
        <div>
          <dt>Trace</dt>
          <dd>
            <code>
              <Id text={row.traceId} />
            </code>
            {!all && <Copy text={row.traceId} what="trace id" />}
            {link && (
              <a class="open-trace" href={link} target="_blank" rel="noopener noreferrer">
                Open trace
              </a>
            )}
          </dd>
        </div>
      )}
      {row.spanId !== null && (
        <div>
          <dt>Span</dt>
          <dd>
            <code>
              <Id text={row.spanId} />
            </code>
            {!all && <Copy text={row.spanId} what="span id" />}
          </dd>
        </div>
      )}
    </>
  );
}

function Metadata({ row, whole: all }: { row: StepRow | AttemptRow; whole: boolean }): JSX.Element | null {
  const entries = metadataOf(row);
  if (entries.length === 0) return null;
  return (
    <section class="metadata">
      <h3>
        Metadata {!all && <Copy text={() => JSON.stringify(row.metadata, null, 2)} what="metadata as JSON" />}
      </h3>
      <table>
        <tbody>
          {entries.map(([key, value]) => (
            <tr key={key}>
              <th scope="row">
                <Id text={key} />
              </th>
              <td>
                <div class="value">
                  <Value item={value} />
                </div>
                {!all && <Copy text={() => (typeof value === "string" ? value : JSON.stringify(value))} what="value" />}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Attempts({ step, now, begin, traceUrl, whole: all }: Required<Props>): JSX.Element {
  return (
    <section class="attempts">
      <h3>{count(step.attempts.length, "attempt")}</h3>
      <table>
        <thead>
          <tr>
            <th scope="col">#</th>
            <th scope="col">Status</th>
            <th scope="col" class="number">Began</th>
            <th scope="col" class="number">Took</th>
          </tr>
        </thead>
        {step.attempts.map((attempt) => (
          <Attempt key={attempt.attempt} step={step} attempt={attempt} now={now} begin={begin} traceUrl={traceUrl} whole={all} />
        ))}
      </table>
    </section>
  );
}

function Attempt({ step, attempt, now, begin, traceUrl, whole: all }: Required<Props> & { attempt: AttemptRow }): JSX.Element {
  const last = attempt === step.attempts.at(-1);
  const look: Look = lookOf({ status: attempt.status, stuck: last && step.stuck });
  const running = attempt.status === "running" ? now - millisOf(attempt.startedAt) : null;
  const more = !last && (attempt.error?.stack || metadataOf(attempt).length > 0 || attempt.spanId !== null);
  return (
    <tbody>
      <tr>
        <td>{attempt.attempt}</td>
        <td>
          <span class={`is-${look}`}>
            <Shape look={look} />
          </span>{" "}
          {look}
          {last && <span class="quiet"> last</span>}
        </td>
        <td class="number">+{offset(Math.max(0, millisOf(attempt.startedAt) - begin))}</td>
        <td class="number">{running === null ? duration(attempt.durationMs) : `${duration(whole(running))} so far`}</td>
      </tr>
      {(attempt.error ?? more ?? attempt.skipReason) && (
        <tr class="attempt-more">
          <td colSpan={4}>
            {attempt.skipReason && <Prose text={attempt.skipReason} />}
            {attempt.error && (
              <p>
                <strong class="is-error">
                  <Id text={attempt.error.name} />
                </strong>
                {attempt.error.message && (
                  <>
                    : <Prose text={attempt.error.message} />
                  </>
                )}
              </p>
            )}
            {more && (
              <details open={all}>
                <summary>Stack, ids and metadata of attempt {attempt.attempt}</summary>
                {attempt.error?.stack && <Stack stack={attempt.error.stack} whole={all} />}
                <dl class="panel-facts">
                  <Trace row={attempt} traceUrl={traceUrl} whole={all} />
                </dl>
                <Metadata row={attempt} whole={all} />
              </details>
            )}
          </td>
        </tr>
      )}
    </tbody>
  );
}
