// What differs between this run and another of its flow: what went well, mostly, beside what did not.
import type { ComponentChildren, JSX } from "preact";
import type { RunDetail, StepRow } from "../api";
import { useRead } from "../data";
import { Loaded } from "../frame";
import { type Look, MISSING_REASONS, Shape } from "../status";
import { count, duration, Id, Prose, Value } from "../text";
import { changed, link, navigate, runLink } from "../url";
import { differences, type MetadataChange, type StepDifference } from "./differences";

interface Props {
  run: RunDetail;
  otherId: string;
  onStep: (stepKey: string) => void;
}

export function Compare({ run, otherId, onStep }: Props): JSX.Element {
  const read = useRead<RunDetail>(link("/api/run", { flow: run.flowKey, run_id: otherId }));
  return (
    <section class="compare" aria-labelledby="compare">
      <div class="heading">
        <h2 id="compare">
          Compared with{" "}
          <a href={runLink(run.flowKey, otherId)}>
            <Id text={otherId} />
          </a>{" "}
          {otherId === run.lastGood && <span class="quiet">the last good run before this one</span>}
        </h2>
        <Another run={run} otherId={otherId} />
      </div>
      <Loaded read={read} missing={<Unknown run={run} otherId={otherId} />}>
        {(other) => <Found run={run} other={other} onStep={onStep} />}
      </Loaded>
    </section>
  );
}

function Unknown({ run, otherId }: { run: RunDetail; otherId: string }): JSX.Element {
  return (
    <div class="box">
      <p>
        No run{" "}
        <code>
          <Id text={otherId} />
        </code>{" "}
        of this flow is kept. <a href={link("/runs", { flow: run.flowKey, status: "success" })}>Runs that succeeded</a>
      </p>
    </div>
  );
}

/** Any other run of the flow can be put beside this one. */
function Another({ run, otherId }: { run: RunDetail; otherId: string }): JSX.Element {
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const asked = new FormData(event.currentTarget as HTMLFormElement).get("other");
    if (typeof asked === "string" && asked.trim()) navigate(changed({ compare: asked.trim() }), { replace: true });
  };
  return (
    <form class="another" onSubmit={submit}>
      <label>
        <span class="unseen">Id of another run</span>
        <input key={otherId} name="other" placeholder="another run id" autocomplete="off" spellcheck={false} />
      </label>
      {run.lastGood !== null && otherId !== run.lastGood && <a href={changed({ compare: run.lastGood })}>the last good one</a>}
      <a href={changed({ compare: null })}>Close</a>
    </form>
  );
}

function Found({ run, other, onStep }: { run: RunDetail; other: RunDetail; onStep: (stepKey: string) => void }): JSX.Element {
  const { steps, same } = differences(other, run);
  return (
    <>
      <p class="compare-whole">
        It {verb(other)} in {duration(other.durationMs)}, this one {verb(run)}
        {run.durationMs !== null && <> in {duration(run.durationMs)}</>}.{" "}
        {steps.length === 0 ? `No step differs: ${count(same, "step")} went alike.` : same > 0 && <span class="quiet">{count(same, "step")} went alike and {same === 1 ? "is" : "are"} left out.</span>}
      </p>
      {steps.length > 0 && (
        <div class="scroll">
          <table class="listing compared">
            <thead>
              <tr>
                <th scope="col">Step</th>
                <th scope="col">That run</th>
                <th scope="col">This run</th>
              </tr>
            </thead>
            {steps.map((step) => (
              <Step key={step.stepKey} step={step} onStep={onStep} />
            ))}
          </table>
        </div>
      )}
    </>
  );
}

function verb(run: RunDetail): string {
  return { success: "succeeded", error: "failed", running: run.stuck ? "is stuck" : "is running", incomplete: "ended incomplete" }[run.status];
}

function Step({ step, onStep }: { step: StepDifference; onStep: (stepKey: string) => void }): JSX.Element {
  const { looks, ratio, attempts, services, error, metadata } = step;
  return (
    <tbody>
      <tr>
        <th scope="row">
          <a
            href={changed({ step: step.stepKey })}
            onClick={(event) => {
              if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
              event.preventDefault();
              onStep(step.stepKey);
            }}
          >
            <Id text={step.label} />
          </a>
        </th>
        <Side step={step.other} changed={looks !== null || error} ratio={null} attempts={attempts?.[0]} service={services?.[0]} />
        <Side step={step.here} changed={looks !== null || error} ratio={ratio} attempts={attempts?.[1]} service={services?.[1]} />
      </tr>
      {metadata.map((change) => (
        <MetadataRow key={change.key} change={change} />
      ))}
    </tbody>
  );
}

interface SideProps {
  step: StepRow | null;
  /** The status, or the error, is not the same on both sides. */
  changed: boolean;
  ratio: number | null;
  attempts: number | undefined;
  service: string | null | undefined;
}

function Side({ step, changed: differs, ratio, attempts, service }: SideProps): JSX.Element {
  if (!step) return <td class="quiet">no such step</td>;
  const look = (step.stuck ? "stuck" : step.status) as Look;
  return (
    <td>
      <span class={`is-${look}`}>
        <Shape look={look} />
      </span>{" "}
      {differs ? <strong>{look}</strong> : look}
      {step.durationMs !== null && step.status !== "skipped" && <> {duration(step.durationMs)}</>}
      {step.missingReason && <span class="quiet">: {MISSING_REASONS[step.missingReason]}</span>}
      {ratio !== null && <strong class={ratio > 1 ? "is-stuck" : "is-success"}> {ratio > 1 ? `${factor(ratio)}× as long` : `${factor(1 / ratio)}× as fast`}</strong>}
      {attempts !== undefined && <> {count(attempts, "attempt")}</>}
      {service !== undefined && (
        <>
          {" "}
          by <Id text={service ?? "no service"} />
        </>
      )}
      {differs && step.error && (
        <div class="compared-error">
          <strong class="is-error">
            <Id text={step.error.name} />
          </strong>
          {step.error.message && (
            <>
              : <Prose text={step.error.message} />
            </>
          )}
        </div>
      )}
    </td>
  );
}

function factor(ratio: number): string {
  return ratio < 10 ? ratio.toFixed(1) : ratio.toFixed(0);
}

function MetadataRow({ change: { key, other, here } }: { change: MetadataChange }): JSX.Element {
  const kind = other === undefined ? "added" : here === undefined ? "gone" : "changed";
  return (
    <tr class="compared-metadata">
      <th scope="row">
        <span class="quiet">{kind}</span>{" "}
        <code>
          <Id text={key} />
        </code>
      </th>
      <Cell>{other === undefined ? <span class="quiet">–</span> : <Value item={other} />}</Cell>
      <Cell>{here === undefined ? <span class="quiet">–</span> : <Value item={here} />}</Cell>
    </tr>
  );
}

function Cell({ children }: { children: ComponentChildren }): JSX.Element {
  return (
    <td>
      <div class="value">{children}</div>
    </td>
  );
}
