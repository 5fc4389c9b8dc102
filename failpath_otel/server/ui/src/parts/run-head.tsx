// What is said first of a run: which step failed and why, or what it waits for; and the facts of the run as a whole.
import type { ComponentChildren, JSX } from "preact";
import type { RunDetail, StepRow } from "../api";
import { Counts, type Look, Shape } from "../status";
import { count, duration, Id, Moment, Prose } from "../text";
import { culprit } from "./stack";
import { Limit } from "./step-panel";
import { inOrder, runDuration, runningFor, servicesOf, telling, whole } from "./story";

interface Props {
  run: RunDetail;
  now: number;
  /** A step's name that leads to it. */
  stepLink: (step: StepRow) => JSX.Element;
}

/** The run in a sentence or two, the failure first. */
export function Summary({ run, now, stepLink }: Props): JSX.Element {
  const step = telling(run);
  if (step?.status === "error") return <Failed run={run} step={step} stepLink={stepLink} />;
  if (step) return <Underway run={run} now={now} step={step} stepLink={stepLink} />;
  const missing = run.steps.filter(({ status }) => status === "missing");
  if (run.status === "running") {
    return (
      <Line look="running">
        No step runs now; {missing.length > 0 ? <>{count(missing.length, "step")} still to come: </> : "more may come."}
        <Steps steps={missing} stepLink={stepLink} />
      </Line>
    );
  }
  if (run.status === "incomplete") {
    return (
      <Line look="incomplete">
        <strong>Incomplete.</strong> No step failed, but {missing.length === 1 ? "one did" : `${missing.length} did`} not report: <Steps steps={missing} stepLink={stepLink} />
      </Line>
    );
  }
  const retried = run.steps.filter(({ attempts }) => attempts.some(({ status }) => status === "error"));
  return (
    <Line look="success">
      All {count(run.counts.success, "step")} succeeded{run.counts.skipped > 0 && <>, {run.counts.skipped} skipped</>}
      {retried.length > 0 && (
        <>
          , after attempts that failed: <Steps steps={retried} stepLink={stepLink} />
        </>
      )}
      .
    </Line>
  );
}

function Line({ look, children }: { look: Look; children: ComponentChildren }): JSX.Element {
  return (
    <div class={`summary run-summary is-${look}`}>
      <Shape look={look} />
      <span>{children}</span>
    </div>
  );
}

function Steps({ steps, stepLink }: { steps: readonly StepRow[]; stepLink: Props["stepLink"] }): JSX.Element {
  const shown = steps.slice(0, 6);
  return (
    <>
      {shown.map((step, index) => (
        <>
          {index > 0 && ", "}
          {stepLink(step)}
        </>
      ))}
      {steps.length > shown.length && ` and ${steps.length - shown.length} more`}
    </>
  );
}

function Failed({ run, step, stepLink }: { run: RunDetail; step: StepRow; stepLink: Props["stepLink"] }): JSX.Element {
  const { error, attempts } = step;
  const others = inOrder(run).filter((each) => each.status === "error" && each !== step);
  const where = error?.stack ? culprit(error.stack) : null;
  const after = run.steps.filter(({ missingReason }) => missingReason === "upstream_error");
  return (
    <Line look="error">
      <span class="summary-step">
        {stepLink(step)} failed{attempts.length > 1 && `, at attempt ${attempts.length} of ${attempts.length}`}
        {step.durationMs !== null && ` after ${duration(step.durationMs)}`}
      </span>
      {error && (
        <span class="summary-error">
          <strong>
            <Id text={error.name} />
          </strong>
          {error.message && (
            <>
              : <Prose text={error.message.length > 600 ? `${error.message.slice(0, 600)}…` : error.message} />
            </>
          )}
        </span>
      )}
      {where && (
        <code class="summary-where">
          <Id text={where.slice(0, 300)} />
        </code>
      )}
      {(others.length > 0 || after.length > 0) && (
        <span class="summary-rest">
          {others.length > 0 && (
            <>
              Failed as well: <Steps steps={others} stepLink={stepLink} />.{" "}
            </>
          )}
          {after.length > 0 && (
            <>
              Not reached: <Steps steps={after} stepLink={stepLink} />.
            </>
          )}
        </span>
      )}
    </Line>
  );
}

function Underway({ run, now, step, stepLink }: Props & { step: StepRow }): JSX.Element {
  const others = run.steps.filter((each) => each.status === "running" && each !== step);
  return (
    <Line look={step.stuck ? "stuck" : "running"}>
      {stepLink(step)} {step.stuck ? "is stuck: it has been running for" : "has been running for"} <span class="counting">{duration(whole(runningFor(step, now) ?? 0))}</span>
      {step.stuckLearned && <>; 95 of 100 attempts take {duration(step.p95Ms)} or less</>}. <Limit step={step} />
      {others.length > 0 && (
        <span class="summary-rest">
          Running as well: <Steps steps={others} stepLink={stepLink} />.
        </span>
      )}
    </Line>
  );
}

export function RunFacts({ run, now }: { run: RunDetail; now: number }): JSX.Element {
  const services = servicesOf(run);
  return (
    <dl class="facts run-facts">
      <div>
        <dt>Started</dt>
        <dd>
          <Moment time={run.startedAt} />
        </dd>
      </div>
      <div>
        <dt>{run.durationMs === null ? "Running for" : "Duration"}</dt>
        <dd class="counting">{run.durationMs === null ? duration(whole(runDuration(run, now))) : duration(run.durationMs)}</dd>
      </div>
      <div>
        <dt>Steps</dt>
        <dd>
          <Counts counts={run.counts} />
        </dd>
      </div>
      {services.length > 0 && (
        <div>
          <dt>{services.length === 1 ? "Service" : "Services"}</dt>
          <dd>
            {services.map((service, index) => (
              <>
                {index > 0 && ", "}
                <Id text={service} />
              </>
            ))}
          </dd>
        </div>
      )}
      <div>
        <dt>Last heard of</dt>
        <dd>
          <Moment time={run.lastArrivalAt} />
        </dd>
      </div>
    </dl>
  );
}
