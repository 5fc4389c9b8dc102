// One flow: where its runs break. All of it is a view of a window of runs, which the page names.
import type { JSX } from "preact";
import type { ErrorGroup, FlowDetail, FlowNode } from "../api";
import { useRead } from "../data";
import { Loaded, useTitle } from "../frame";
import { useKeys } from "../keys";
import { concerns } from "../live";
import { Begin } from "../parts/begin";
import { Graph, type GraphNode } from "../parts/graph";
import { Grid } from "../parts/grid";
import { Durations } from "../parts/scatter";
import { Counts, type Look, lookOf, Shape } from "../status";
import { Ago, count, duration, Id, Moment, percent } from "../text";
import { changed, link, navigate, place, runLink } from "../url";

const WINDOWS = [30, 100, 300, 1000];
const DEFAULT = 100;
/** From which share of failures on a step is marked as one that fails. */
const FAILING = 0.05;
/** Kinds of errors that are shown at first. */
const FEW = 8;

export function FlowPage({ params }: { params: URLSearchParams }): JSX.Element {
  const flow = params.get("flow") ?? "";
  const last = WINDOWS.find((n) => String(n) === params.get("last")) ?? DEFAULT;
  const cursor = params.get("cursor");
  const step = params.get("step");
  useTitle(flow || "Flow");
  const read = useRead<FlowDetail>(flow ? link("/api/flow", { flow, last, cursor }) : null, {
    live: (changes) => !cursor && concerns(changes, flow),
    ages: (detail) => detail.runs.some((run) => run.status === "running"),
  });
  if (!flow) return <Unnamed />;
  return (
    <>
      <nav class="crumbs" aria-label="Where this is">
        <a href="/">Flows</a> <span aria-hidden="true">/</span>
      </nav>
      <Loaded read={read} missing={<Unknown flow={flow} />}>
        {(detail) => <Detail detail={detail} last={last} cursor={cursor} step={step} />}
      </Loaded>
    </>
  );
}

function Unnamed(): JSX.Element {
  return (
    <>
      <h1>This address names no flow</h1>
      <p>
        A flow is named by a parameter: <code>/flow?flow=&lt;flow slug&gt;</code>. <a href="/">All flows</a>
      </p>
    </>
  );
}

function Unknown({ flow }: { flow: string }): JSX.Element {
  return (
    <>
      <h1>
        <Id text={flow} /> is not known
      </h1>
      <div class="box">
        <p>It is not declared in flows.json, and no run of it has arrived.</p>
        <Begin flow={flow} step="a-step" />
      </div>
    </>
  );
}

interface Props {
  detail: FlowDetail;
  last: number;
  cursor: string | null;
  step: string | null;
}

function Detail({ detail, last, cursor, step }: Props): JSX.Element {
  const { slug, name, nodes, runs, window: shown } = detail;
  const select = (key: string | null) => navigate(changed({ step: key === step ? null : key }), { replace: true });
  const chosen = nodes.find((node) => node.stepKey === step);
  useKeys([
    { keys: "Escape", does: "No step chosen", act: () => select(step) },
    { keys: "f", does: "Runs of this flow that failed", act: () => navigate(link("/runs", { flow: slug, status: "error" })) },
    { keys: "r", does: "Runs of this flow", act: () => navigate(link("/runs", { flow: slug })) },
  ]);
  useTitle(name);
  return (
    <>
      <div class="heading">
        <h1>
          <Id text={name} />{" "}
          {name !== slug && (
            <span class="key">
              <Id text={slug} />
            </span>
          )}{" "}
          {detail.discovered && (
            <span class="tag" title="flows.json does not declare this flow">
              discovered
            </span>
          )}
        </h1>
        <a href={link("/runs", { flow: slug })}>All runs</a>
      </div>
      <Window detail={detail} last={last} cursor={cursor} />
      <Figures detail={detail} />

      <section class="flow-graph" aria-label="Graph of the flow">
        <Graph nodes={nodes.map((node) => graphNode(node, shown.runs))} edges={detail.edges} selected={step} onSelect={select} />
        {chosen && <Chosen node={chosen} of={shown.runs} />}
      </section>

      {runs.length === 0 ? (
        <section class="box">
          <h2>No run of this flow has arrived yet</h2>
          <Begin flow={slug} step={nodes[0]?.stepKey ?? "a-step"} />
        </section>
      ) : (
        <>
          <section aria-labelledby="grid">
            <h2 id="grid">
              Steps and runs <span class="quiet">newest first</span>
            </h2>
            <Grid flow={slug} nodes={nodes} runs={runs} step={step} />
          </section>
          <div class="spots">
            <FirstFailures detail={detail} step={step} />
            <Errors detail={detail} step={step} />
          </div>
          <section aria-labelledby="durations">
            <h2 id="durations">Durations over time</h2>
            <Durations flow={slug} runs={runs} />
          </section>
        </>
      )}
    </>
  );
}

function graphNode(node: FlowNode, of: number): GraphNode {
  const failing = node.counts.error >= FAILING * (node.counts.success + node.counts.error) && node.counts.error > 0;
  const look: Look = !node.reported ? "missing" : failing ? "error" : node.stuck > 0 ? "stuck" : node.counts.running > 0 ? "running" : "success";
  const reported = node.counts.success + node.counts.error;
  const lines = node.reported
    ? [reported > 0 ? `${percent(node.counts.success, reported)} success` : "not run", ...(node.p95Ms === null ? [] : [`p95 ${duration(node.p95Ms)}`])]
    : ["never reported"];
  return { key: node.stepKey, label: node.label, look, lines, weight: of > 0 ? node.counts.error / of : 0 };
}

/** Which runs the page tells of, and the way to others. */
function Window({ detail, last, cursor }: Omit<Props, "step">): JSX.Element {
  const { window: shown } = detail;
  return (
    <p class="window">
      <label>
        <span class="unseen">How many runs</span>
        <select value={String(last)} onChange={(event) => navigate(changed({ last: event.currentTarget.value === String(DEFAULT) ? null : event.currentTarget.value, cursor: null }))}>
          {WINDOWS.map((n) => (
            <option key={n} value={String(n)}>
              {cursor ? `${n} runs` : `the last ${n} runs`}
            </option>
          ))}
        </select>
      </label>
      <span class="quiet">
        {shown.runs === 0 ? (
          "none yet"
        ) : (
          <>
            {shown.runs < last && <>only {count(shown.runs, "run")} </>}
            {shown.oldestAt && (
              <>
                from <Moment time={shown.oldestAt} />
              </>
            )}{" "}
            {shown.newestAt && (
              <>
                to <Moment time={shown.newestAt} />
              </>
            )}
          </>
        )}
      </span>
      {cursor && <a href={changed({ cursor: null })}>Newest</a>}
      {shown.nextCursor && (
        <a href={changed({ cursor: shown.nextCursor })} rel="next">
          Older
        </a>
      )}
    </p>
  );
}

function Figures({ detail }: { detail: FlowDetail }): JSX.Element {
  const of = (...statuses: string[]) => detail.runs.filter((run) => statuses.includes(run.status)).length;
  const ended = of("success", "error", "incomplete");
  const stuck = detail.runs.filter((run) => lookOf(run) === "stuck").length;
  const figures: [string, string, string?][] = [
    ["success", percent(of("success"), ended)],
    ["failed", String(of("error")), of("error") ? "is-error" : ""],
    ["incomplete", String(of("incomplete")), of("incomplete") ? "is-incomplete" : ""],
    ["running", String(of("running")), of("running") ? "is-running" : ""],
    ["stuck", String(stuck), stuck ? "is-stuck" : ""],
  ];
  return (
    <dl class="figures">
      {figures.map(([name, value, look]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd class={look ?? ""}>{value}</dd>
        </div>
      ))}
      <div title="Of every run that is kept, not of this window alone">
        <dt>all kept runs</dt>
        <dd>
          {detail.stats.runs.toLocaleString("en")} <span class="quiet">p50 {duration(detail.stats.p50Ms)}, p95 {duration(detail.stats.p95Ms)}</span>
        </dd>
      </div>
    </dl>
  );
}

function Chosen({ node, of }: { node: FlowNode; of: number }): JSX.Element {
  return (
    <div class="chosen-step sheet" role="status">
      <strong>
        <Id text={node.label} />{" "}
        <span class="key">
          <Id text={node.stepKey} />
        </span>{" "}
        {node.discovered && <span class="tag">discovered</span>}
      </strong>
      {node.reported ? (
        <>
          <Counts counts={{ ...node.counts, stuck: node.stuck } as Partial<Record<Look, number>>} />
          <span class="quiet">
            of {count(of, "run")}; first to fail in {node.failedFirst}; p50 {duration(node.p50Ms)}, p95 {duration(node.p95Ms)} of all kept attempts
          </span>
        </>
      ) : (
        <span class="is-missing">
          No run has ever reported this step: is it called with this key? <a href="/intake">Intake</a> lists names that are like it.
        </span>
      )}
    </div>
  );
}

function FirstFailures({ detail, step }: { detail: FlowDetail; step: string | null }): JSX.Element {
  const ranked = detail.nodes.filter((node) => node.failedFirst > 0).toSorted((a, b) => b.failedFirst - a.failedFirst);
  const most = ranked[0]?.failedFirst ?? 0;
  return (
    <section aria-labelledby="first-failures">
      <h2 id="first-failures">First to fail</h2>
      {ranked.length === 0 ? (
        <p class="quiet">No run of this window failed.</p>
      ) : (
        <ol class="ranking sheet">
          {ranked.map((node) => (
            <li key={node.stepKey} class={node.stepKey === step ? "chosen" : ""}>
              <a href={changed({ step: node.stepKey })}>
                <Id text={node.label} />
              </a>
              <Bar share={node.failedFirst / most} />
              <span class="number">
                {node.failedFirst} <span class="quiet">{percent(node.failedFirst, detail.window.runs)}</span>
              </span>
            </li>
          ))}
        </ol>
      )}
    </section>
  );
}

function Bar({ share }: { share: number }): JSX.Element {
  return (
    <svg class="share-bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
      <rect width={100 * share} height="8" />
    </svg>
  );
}

function Errors({ detail, step }: { detail: FlowDetail; step: string | null }): JSX.Element {
  const shown = step === null ? detail.errors : detail.errors.filter((group) => group.stepKey === step);
  const groups = shown.length > 0 || step === null ? shown : detail.errors;
  const all = place().params.get("errors") === "all" || groups.length <= FEW + 2;
  return (
    <section aria-labelledby="errors">
      <h2 id="errors">
        Errors <span class="quiet">of all kept runs, seen last first</span>
      </h2>
      {groups.length === 0 ? (
        <p class="quiet">No step has failed.</p>
      ) : (
        <div class="scroll" role="region" aria-label="Table of errors" tabIndex={0}>
          <table class="listing errors">
            <thead>
              <tr>
                <th scope="col">Error</th>
                <th scope="col" class="number">Times</th>
                <th scope="col">First seen</th>
                <th scope="col">Last seen</th>
              </tr>
            </thead>
            <tbody>
              {(all ? groups : groups.slice(0, FEW)).map((group) => (
                <ErrorRow key={group.fingerprint} flow={detail.slug} group={group} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {!all && (
        <p>
          <a href={changed({ errors: "all" })}>All {groups.length} kinds</a>
        </p>
      )}
      {detail.otherErrors > 0 && (
        <p class="quiet">
          And {count(detail.otherErrors, "failure")} of other kinds, seen longer ago.
        </p>
      )}
    </section>
  );
}

function ErrorRow({ flow, group }: { flow: string; group: ErrorGroup }): JSX.Element {
  return (
    <tr>
      <th scope="row">
        <span class="clamp">
          <Shape look="error" />{" "}
          <strong>
            <Id text={group.name} />
          </strong>
          {group.message && (
            <>
              : <Id text={group.message} />
            </>
          )}
        </span>
        <span class="key">
          <Id text={group.stepKey} />
        </span>
      </th>
      <td class="number">{group.count.toLocaleString("en")}</td>
      <td>
        <Ago time={group.firstSeenAt} />
      </td>
      <td>
        <a href={runLink(flow, group.lastRunId, { step: group.stepKey })}>
          <Ago time={group.lastSeenAt} />
        </a>
      </td>
    </tr>
  );
}
