// One run, opened on what failed: its steps as a graph and over time, and all that is known of the chosen one.
import type { JSX } from "preact";
import { useEffect, useReducer, useRef, useState } from "preact/hooks";
import type { About, RunDetail, StepRow } from "../api";
import { type Read, useLiveness, useRead } from "../data";
import { Loaded, useTitle } from "../frame";
import { useKeys } from "../keys";
import { concerns } from "../live";
import { Compare } from "../parts/compare";
import { Copy } from "../parts/copy";
import { asHtml, asJson, save } from "../parts/export";
import { Graph } from "../parts/graph";
import { RunFacts, Summary } from "../parts/run-head";
import { StepPanel, traceLink } from "../parts/step-panel";
import { graphNode, inOrder, telling } from "../parts/story";
import { isTelling, Waterfall } from "../parts/waterfall";
import { Badge, lookOf } from "../status";
import { Id, millisOf, plain } from "../text";
import { changed, link, navigate, runLink } from "../url";

/** With fewer steps than this there is nothing to hide. */
const MANY = 9;
const TICK_MS = 500;

export function RunPage({ params }: { params: URLSearchParams }): JSX.Element {
  const flow = params.get("flow") ?? "";
  const runId = params.get("run_id") ?? "";
  useTitle(runId || "Run", ...(flow ? [flow] : []));
  const read = useRead<RunDetail>(flow && runId ? link("/api/run", { flow, run_id: runId }) : null, {
    live: (changes) => concerns(changes, flow, runId),
    ages: (run) => run.status === "running" || run.steps.some(({ status }) => status === "running"),
  });
  useKeys([{ keys: "r", does: "Runs of this flow", act: () => navigate(link("/runs", { flow })) }]);
  if (!flow || !runId) return <Unnamed />;
  return (
    <>
      <nav class="crumbs" aria-label="Where this is">
        <a href={link("/flow", { flow })}>
          <Id text={read.data?.flowName ?? flow} />
        </a>{" "}
        <span aria-hidden="true">/</span> <a href={link("/runs", { flow })}>Runs</a> <span aria-hidden="true">/</span>
      </nav>
      <Loaded read={read} missing={<Unknown flow={flow} runId={runId} />}>
        {(run) => <Detail run={run} read={read} params={params} />}
      </Loaded>
    </>
  );
}

function Unnamed(): JSX.Element {
  return (
    <>
      <h1>This address names no run</h1>
      <p>
        A run is named by two parameters: <code>/run?flow=&lt;flow slug&gt;&amp;run_id=&lt;run id&gt;</code>. <a href="/runs">All runs</a>
      </p>
    </>
  );
}

function Unknown({ flow, runId }: { flow: string; runId: string }): JSX.Element {
  return (
    <>
      <h1>
        <Id text={runId} /> is not known
      </h1>
      <div class="box">
        <p>
          No event of this run of <Id text={flow} /> is kept. As soon as one arrives, the run is shown here. Otherwise:
        </p>
        <ul>
          <li>
            The id may belong to another flow or be incomplete: <a href={link("/runs", { q: runId })}>look for it in all flows</a>.
          </li>
          <li>
            It may never have arrived: <a href="/intake">Intake</a> tells what came in and what was refused.
          </li>
          <li>
            It may have been deleted, since runs are kept for a time: <a href={link("/runs", { flow })}>runs of this flow</a> that are there.
          </li>
        </ul>
      </div>
    </>
  );
}

interface Props {
  run: RunDetail;
  read: Read<RunDetail>;
  params: URLSearchParams;
}

function Detail({ run, read, params }: Props): JSX.Element {
  const about = useRead<About>("/api/about").data;
  const now = useNow(run, read);
  const selected = useSelected(run, params.get("step"));
  const compared = params.get("compare");
  const hidden = params.get("hide") === "success";
  const panel = useRef<HTMLElement>(null);
  const files = useFiles(run, now);

  const select = (key: string | null) => navigate(changed({ step: key }), { replace: true });
  const choose = (key: string) => {
    select(key);
    // Where all stands in one column, what was asked for may be far below.
    if (panel.current && panel.current.getBoundingClientRect().top > innerHeight - 120) panel.current.scrollIntoView({ block: "start" });
  };
  const compare = (id: string | null) => navigate(changed({ compare: id }), { replace: true });
  const shown = inOrder(run).filter((step) => !hidden || isTelling(step) || step.stepKey === selected?.stepKey);
  const go = (by: number) => {
    const index = shown.findIndex((step) => step.stepKey === selected?.stepKey);
    const next = shown[index < 0 ? (by > 0 ? 0 : shown.length - 1) : index + by];
    if (next) select(next.stepKey);
  };
  const trace = selected && traceLink(about?.traceUrl ?? null, selected);
  useKeys([
    { keys: "j", does: "Next step", act: () => go(1) },
    { keys: "k", does: "Step before", act: () => go(-1) },
    { keys: "h", does: "Hide steps that succeeded", act: () => navigate(changed({ hide: hidden ? null : "success" }), { replace: true }) },
    { keys: "o", does: "Open the step's trace", act: () => trace && open(trace, "_blank", "noopener,noreferrer") },
    { keys: "c", does: "Compare with the last good run", act: () => compare(compared ? null : run.lastGood) },
    { keys: "e", does: "Export as HTML", act: () => void files.export("html") },
  ]);
  const stepLink = (step: StepRow) => (
    <a
      href={changed({ step: step.stepKey })}
      onClick={(event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        choose(step.stepKey);
      }}
    >
      <Id text={step.label} />
    </a>
  );
  return (
    <>
      <div class="heading run-heading">
        <h1>
          <Id text={run.runId} /> <Copy text={run.runId} what="run id" />
        </h1>
        <Badge look={lookOf(run)} />
        <Actions run={run} selected={selected} compared={compared} onCompare={compare} files={files} />
      </div>
      <RunFacts run={run} now={now} />
      <Summary run={run} now={now} stepLink={stepLink} />
      <Graph nodes={run.steps.map((step) => graphNode(step, now))} edges={run.edges} selected={selected?.stepKey ?? null} onSelect={choose} />
      {compared && <Compare run={run} otherId={compared} onStep={choose} />}
      <div class="run-columns">
        <section aria-labelledby="waterfall">
          <div class="heading">
            <h2 id="waterfall">When each step ran</h2>
            <Hide run={run} hidden={hidden} />
          </div>
          <Waterfall run={run} now={now} selected={selected?.stepKey ?? null} hidden={hidden} hrefOf={(key) => changed({ step: key })} onSelect={choose} />
        </section>
        <section class="panel sheet" ref={panel} aria-label={selected ? `Step ${plain(selected.label)}` : "Step"}>
          {selected ? (
            <StepPanel key={selected.stepKey} step={selected} now={now} begin={millisOf(run.startedAt)} traceUrl={about?.traceUrl ?? null} />
          ) : (
            <p class="quiet">Choose a step in the graph or by j and k: its times, metadata and attempts are shown here.</p>
          )}
        </section>
      </div>
    </>
  );
}

/** The step of the address; without one the step that the page opened on, which news do not change. */
function useSelected(run: RunDetail, asked: string | null): StepRow | undefined {
  const opened = useRef<string>(undefined);
  if (opened.current === undefined) opened.current = telling(run)?.stepKey;
  return run.steps.find(({ stepKey }) => stepKey === asked) ?? run.steps.find(({ stepKey }) => stepKey === opened.current);
}

/** The time up to which running steps are drawn: it stands still where the page is not live. */
function useNow(run: RunDetail, read: Read<RunDetail>): number {
  const [, tick] = useReducer((n: number) => n + 1, 0);
  const live = useLiveness() === "live" && !read.error;
  const runs = live && (run.status === "running" || run.steps.some(({ status }) => status === "running"));
  useEffect(() => {
    if (!runs) return undefined;
    const timer = setInterval(() => document.hidden || tick(null), TICK_MS);
    return () => clearInterval(timer);
  }, [runs]);
  return runs ? Date.now() : (read.at ?? Date.now());
}

interface Files {
  export: (kind: "html" | "json") => Promise<void>;
  failed: string | null;
}

function useFiles(run: RunDetail, now: number): Files {
  const [failed, setFailed] = useState<string | null>(null);
  return {
    failed,
    export: async (kind) => {
      try {
        save(run, await (kind === "html" ? asHtml(run, now) : asJson(run, now)), kind);
        setFailed(null);
      } catch (error) {
        setFailed(`The file could not be made: ${(error as Error).message}`);
      }
    },
  };
}

interface ActionsProps {
  run: RunDetail;
  selected: StepRow | undefined;
  compared: string | null;
  onCompare: (id: string | null) => void;
  files: Files;
}

function Actions({ run, selected, compared, onCompare, files }: ActionsProps): JSX.Element {
  const permalink = () => location.origin + runLink(run.flowKey, run.runId, { step: selected?.stepKey, compare: compared });
  return (
    <div class="actions">
      <button
        type="button"
        class="plain"
        aria-pressed={Boolean(compared)}
        disabled={run.lastGood === null && !compared}
        title={run.lastGood === null ? "No run of this flow succeeded before this one" : "What differs from the last good run (c)"}
        onClick={() => onCompare(compared ? null : run.lastGood)}
      >
        Compare with the last good run
      </button>
      <Copy text={permalink} what="link to this view">
        Copy link
      </Copy>
      <button type="button" class="plain" title="One HTML file with all of this run (e)" onClick={() => void files.export("html")}>
        Export HTML
      </button>
      <button type="button" class="plain" title="The run and its events as JSON" onClick={() => void files.export("json")}>
        Export JSON
      </button>
      {files.failed && (
        <span class="is-error" role="alert">
          {files.failed}
        </span>
      )}
    </div>
  );
}

function Hide({ run, hidden }: { run: RunDetail; hidden: boolean }): JSX.Element | null {
  const many = run.steps.filter((step) => !isTelling(step)).length;
  if (!hidden && (run.steps.length < MANY || many === 0)) return null;
  return (
    <button type="button" class="plain" aria-pressed={hidden} title="Hide steps that succeeded (h)" onClick={() => navigate(changed({ hide: hidden ? null : "success" }), { replace: true })}>
      {hidden ? `${many} that succeeded are hidden` : `Hide ${many} that succeeded`}
    </button>
  );
}
