// The first page: a card a flow, those that fail first to be seen.
import type { JSX } from "preact";
import type { FlowList, FlowRow } from "../api";
import { useRead } from "../data";
import { Loaded, useTitle } from "../frame";
import { Begin } from "../parts/begin";
import { Strip } from "../parts/strip";
import { Shape } from "../status";
import { Ago, count, duration, Id, percent } from "../text";
import { link } from "../url";

export function FlowsPage(): JSX.Element {
  useTitle("Flows");
  const read = useRead<FlowList>("/api/flows", { live: () => true, ages: (list) => list.flows.some((flow) => flow.stats.running > 0) });
  return (
    <>
      <h1>Flows</h1>
      <Loaded read={read}>{(list) => <Cards flows={list.flows} />}</Loaded>
    </>
  );
}

function Cards({ flows }: { flows: readonly FlowRow[] }): JSX.Element {
  const declared = flows.filter((flow) => !flow.discovered);
  const discovered = flows.filter((flow) => flow.discovered);
  if (flows.every((flow) => flow.stats.runs === 0)) {
    return (
      <>
        <section class="box" aria-labelledby="first">
          <h2 id="first">Nothing has arrived yet</h2>
          <Begin />
        </section>
        {declared.length > 0 && <List kind="declared" flows={declared} title="Declared in flows.json" />}
      </>
    );
  }
  return (
    <>
      {declared.length > 0 && <List kind="declared" flows={declared} />}
      {discovered.length > 0 && (
        <List kind="discovered" flows={discovered} title="Discovered" says="These came without being declared in flows.json, so what is missing from a run of theirs cannot be known." />
      )}
    </>
  );
}

function List({ flows, kind, title, says }: { flows: readonly FlowRow[]; kind: string; title?: string; says?: string }): JSX.Element {
  return (
    <section aria-labelledby={`flows-${kind}`}>
      <h2 id={`flows-${kind}`} class={title ? "" : "unseen"}>
        {title ?? "Declared"}
      </h2>
      {says && <p class="quiet">{says}</p>}
      <ul class="cards">
        {flows.map((flow) => (
          <li key={flow.slug}>
            <Card flow={flow} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function Card({ flow }: { flow: FlowRow }): JSX.Element {
  const { stats } = flow;
  const ended = stats.success + stats.error + stats.incomplete;
  return (
    <article class="card sheet">
      <header>
        <h3>
          <a class="covers" href={link("/flow", { flow: flow.slug })}>
            <Id text={flow.name} />
          </a>
        </h3>
        {flow.name !== flow.slug && (
          <span class="key">
            <Id text={flow.slug} />
          </span>
        )}
        <span class="last quiet">{stats.lastRunAt ? <Ago time={stats.lastRunAt} /> : "no run yet"}</span>
      </header>
      <Strip flow={flow.slug} runs={flow.recent} />
      <dl class="figures">
        <div>
          <dt>success</dt>
          <dd class={stats.error > 0 ? "" : "is-success"}>{percent(stats.success, ended)}</dd>
        </div>
        <div>
          <dt>runs</dt>
          <dd>
            <a href={link("/runs", { flow: flow.slug })}>{stats.runs.toLocaleString("en")}</a>
          </dd>
        </div>
        <div>
          <dt>failed</dt>
          <dd>
            {stats.error > 0 ? (
              <a class="is-error" href={link("/runs", { flow: flow.slug, status: "error" })}>
                {stats.error.toLocaleString("en")}
              </a>
            ) : (
              <span class="quiet">0</span>
            )}
          </dd>
        </div>
        <div>
          <dt>incomplete</dt>
          <dd>
            {stats.incomplete > 0 ? (
              <a class="is-incomplete" href={link("/runs", { flow: flow.slug, status: "incomplete" })}>
                {stats.incomplete.toLocaleString("en")}
              </a>
            ) : (
              <span class="quiet">0</span>
            )}
          </dd>
        </div>
        <div>
          <dt>running</dt>
          <dd>
            {stats.running > 0 ? (
              <a class="is-running" href={link("/runs", { flow: flow.slug, status: "running" })}>
                <Shape look="running" /> {stats.running.toLocaleString("en")}
              </a>
            ) : (
              <span class="quiet">0</span>
            )}
          </dd>
        </div>
        <div>
          <dt>p50</dt>
          <dd>{duration(stats.p50Ms)}</dd>
        </div>
        <div>
          <dt>p95</dt>
          <dd>{duration(stats.p95Ms)}</dd>
        </div>
      </dl>
      <footer>
        {flow.worstStep && (
          <p class="is-error">
            <Shape look="error" />{" "}
            <span>
              fails most at{" "}
              <a href={link("/flow", { flow: flow.slug, step: flow.worstStep.stepKey })}>
                <Id text={flow.worstStep.label} />
              </a>
              <span class="quiet">
                : {flow.worstStep.failed} of the last {count(flow.worstStep.of, "run")}
              </span>
            </span>
          </p>
        )}
        {stats.runs > 0 && flow.neverReported.length > 0 && (
          <p class="is-missing">
            <Shape look="missing" />{" "}
            <span>
              never reported:{" "}
              {flow.neverReported.slice(0, 3).map((key, n) => (
                <>
                  {n > 0 && ", "}
                  <span class="key">
                    <Id text={key} />
                  </span>
                </>
              ))}
              {flow.neverReported.length > 3 && <span class="quiet"> and {flow.neverReported.length - 3} more</span>}
            </span>
          </p>
        )}
      </footer>
    </article>
  );
}
