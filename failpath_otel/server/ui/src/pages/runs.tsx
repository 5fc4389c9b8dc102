// The list of runs: filters in the address, newest first, live at the top without moving what is read.
import type { JSX, TargetedEvent } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { FlowList, RunPage as Page, RunRow } from "../api";
import { get, useRead, useTick } from "../data";
import { Loaded, useTitle } from "../frame";
import { useKeys } from "../keys";
import { concerns } from "../live";
import { Begin } from "../parts/begin";
import { Badge, Counts, lookOf, type Look } from "../status";
import { count, duration, Id, Moment, plain } from "../text";
import { changed, link, navigate, runLink } from "../url";

const STATUSES = ["error", "running", "stuck", "incomplete", "success"] as const;
const WITHIN: Record<string, [string, number]> = {
  "15m": ["15 minutes", 15],
  "1h": ["hour", 60],
  "24h": ["24 hours", 24 * 60],
  "7d": ["7 days", 7 * 24 * 60],
};
const LIMIT = 50;
/** A search goes on by itself until it found a page full, or has asked so often. */
const MOST_ASKS = 200;

type Filters = Record<"flow" | "status" | "q" | "within" | "since" | "until" | "cursor", string | null>;

function filtersOf(params: URLSearchParams): Filters {
  const names = ["flow", "status", "q", "within", "since", "until", "cursor"] as const;
  return Object.fromEntries(names.map((name) => [name, params.get(name) || null])) as Filters;
}

export function RunsPage({ params }: { params: URLSearchParams }): JSX.Element {
  const filters = filtersOf(params);
  const flows = useRead<FlowList>("/api/flows");
  useTitle("Runs", ...(filters.flow ? [filters.flow] : []));
  const path = usePath(filters);
  const read = useRead<Page>(path, {
    live: (changes) => !filters.cursor && concerns(changes, filters.flow),
    ages: (page) => filters.status === "stuck" || page.runs.some((run) => run.status === "running"),
  });
  const filtered = Boolean(filters.flow ?? filters.status ?? filters.q ?? filters.within ?? filters.since ?? filters.until);
  return (
    <>
      <h1>Runs</h1>
      <FilterForm filters={filters} flows={flows.data?.flows.map(({ slug, name }) => ({ slug, name })) ?? []} filtered={filtered} />
      <Loaded read={read}>{(page) => <Found key={path} page={page} path={path} filters={filters} filtered={filtered} />}</Loaded>
    </>
  );
}

/** The call that answers the filters. A time such as "the last hour" is counted from this minute. */
function usePath(filters: Filters): string {
  useTick(30_000);
  const minute = Math.floor(Date.now() / 60_000);
  return useMemo(() => {
    const ago = filters.within ? WITHIN[filters.within]?.[1] : undefined;
    const since = ago === undefined ? filters.since : new Date((minute - ago) * 60_000).toISOString();
    const { flow, status, q, until, cursor } = filters;
    return link("/api/runs", { flow, status, q, since, until, cursor, limit: LIMIT });
  }, [...Object.values(filters), filters.within && minute]);
}

function FilterForm({ filters, flows, filtered }: { filters: Filters; flows: { slug: string; name: string }[]; filtered: boolean }): JSX.Element {
  const text = useRef<HTMLInputElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useKeys([{ keys: "/", does: "Search the runs", act: () => text.current?.select() }]);
  useEffect(() => {
    // Gone back or to a link: the field follows, unless someone types in it.
    if (text.current && document.activeElement !== text.current) text.current.value = filters.q ?? "";
  }, [filters.q]);
  const set = (values: Partial<Filters>, replace = false) => navigate(changed({ ...values, cursor: null }), { replace });
  const typed = (event: TargetedEvent<HTMLInputElement>) => {
    const q = event.currentTarget.value;
    clearTimeout(timer.current);
    timer.current = setTimeout(() => set({ q }, true), 250);
  };
  const known = flows.some((flow) => flow.slug === filters.flow);
  return (
    <form
      class="filters"
      role="search"
      aria-label="Filter the runs"
      onSubmit={(event) => {
        event.preventDefault();
        clearTimeout(timer.current);
        set({ q: text.current?.value ?? null });
      }}
    >
      <label>
        Flow
        <select value={filters.flow ?? ""} onChange={(event) => set({ flow: event.currentTarget.value })}>
          <option value="">all</option>
          {flows.map(({ slug, name }) => (
            <option key={slug} value={slug}>
              {plain(name)}
            </option>
          ))}
          {filters.flow && !known && <option value={filters.flow}>{plain(filters.flow)}</option>}
        </select>
      </label>
      <fieldset>
        <legend>Status</legend>
        {["", ...STATUSES].map((status) => (
          <button
            key={status}
            type="button"
            class={status ? `is-${status}` : ""}
            aria-pressed={(filters.status ?? "") === status}
            onClick={() => set({ status })}
          >
            {status || "all"}
          </button>
        ))}
      </fieldset>
      <label>
        Started
        <select value={filters.within ?? (filters.since || filters.until ? "between" : "")} onChange={(event) => set({ within: event.currentTarget.value, since: null, until: null })}>
          <option value="">any time</option>
          {Object.entries(WITHIN).map(([value, [name]]) => (
            <option key={value} value={value}>
              last {name}
            </option>
          ))}
          {(filters.since || filters.until) && <option value="between">between</option>}
        </select>
      </label>
      <label class="grows">
        Run id, metadata or error
        <input ref={text} type="search" name="q" defaultValue={filters.q ?? ""} maxLength={512} autocomplete="off" spellcheck={false} onInput={typed} />
      </label>
      {filtered && (
        <a class="clear" href="/runs">
          Clear
        </a>
      )}
      {(filters.since || filters.until) && (
        <p class="between">
          from {filters.since ? <Moment time={filters.since} /> : "the beginning"} to {filters.until ? <Moment time={filters.until} /> : "now"}
        </p>
      )}
    </form>
  );
}

function Found({ page, path, filters, filtered }: { page: Page; path: string; filters: Filters; filtered: boolean }): JSX.Element {
  // What no index tells is looked for by going through the runs.
  const searching = Boolean(filters.q) || filters.status === "stuck";
  const further = useFurther(path, page, searching);
  const all = [...page.runs, ...further.runs];
  const { rows, waiting, show } = useStill(all, !filters.cursor);
  useKeys([
    { keys: "j", does: "The next run", act: () => step(1) },
    { keys: "k", does: "The run before", act: () => step(-1) },
    { keys: "f", does: "Failed runs only, or all", act: () => navigate(changed({ status: filters.status === "error" ? null : "error", cursor: null })) },
  ]);
  const older = further.cursor;
  if (rows.length === 0 && !further.looking && !(searching && older)) {
    if (filters.cursor) return <p class="box">There are no older runs.</p>;
    if (filtered)
      return (
        <p class="box">
          No run matches this filter. <a href="/runs">Show all runs</a>
        </p>
      );
    return (
      <section class="box">
        <h2>Nothing has arrived yet</h2>
        <Begin />
      </section>
    );
  }
  return (
    <>
      <p class="news" role="status">
        {waiting > 0 && (
          <button type="button" onClick={show}>
            ↑ {count(waiting, "new run")}
          </button>
        )}
      </p>
      {rows.length > 0 && <Table runs={rows} flow={filters.flow} />}
      <p class="searched" role="status">
        {searching && further.looking && <>Looking further back … </>}
        {searching && further.searchedTo && (
          <>
            Looked at the runs since <Moment time={further.searchedTo} />.{" "}
          </>
        )}
        {searching && older && (
          <button type="button" class="link" onClick={further.looking ? further.stop : further.go}>
            {further.looking ? "Stop" : "Look further back"}
          </button>
        )}
      </p>
      <nav class="paging" aria-label="Older and newer runs">
        {filters.cursor && <a href={changed({ cursor: null })}>Newest runs</a>}
        {older && !searching && (
          <a href={changed({ cursor: older })} rel="next">
            Older runs
          </a>
        )}
      </nav>
    </>
  );
}

interface Further {
  runs: RunRow[];
  cursor: string | null;
  searchedTo: string | null;
  looking: boolean;
  go: () => void;
  stop: () => void;
}

/** A search answers within a bound and says how far it came; this asks on until a page is full. */
function useFurther(path: string, first: Page, searching: boolean): Further {
  const [found, setFound] = useState<Page[]>([]);
  const [wanted, setWanted] = useState(LIMIT);
  const [stopped, setStopped] = useState(false);
  const last = found.at(-1) ?? first;
  const runs = found.flatMap((page) => page.runs);
  const more = searching && last.nextCursor !== null;
  const looking = more && !stopped && first.runs.length + runs.length < wanted && found.length < MOST_ASKS;
  useEffect(() => {
    if (!looking) return undefined;
    const ends = new AbortController();
    get<Page>(`${path}&cursor=${encodeURIComponent(last.nextCursor ?? "")}`, ends.signal).then(
      (page) => ends.signal.aborted || setFound((before) => [...before, page]),
      () => ends.signal.aborted || setStopped(true),
    );
    return () => ends.abort();
  }, [looking, found.length]);
  return {
    runs,
    cursor: last.nextCursor,
    searchedTo: searching ? last.searchedTo : null,
    looking,
    go: () => {
      setStopped(false);
      setWanted(first.runs.length + runs.length + LIMIT);
    },
    stop: () => setStopped(true),
  };
}

/** Holds new rows back while someone reads further down; rows that are shown always tell what is. */
function useStill(runs: RunRow[], live: boolean): { rows: RunRow[]; waiting: number; show: () => void } {
  const id = (run: RunRow) => `${run.flowKey}\n${run.runId}`;
  const shown = useRef<Set<string> | null>(null);
  const [, again] = useState(0);
  const reading = live && shown.current !== null && scrollY > 150;
  if (!reading) shown.current = new Set(runs.map(id));
  useEffect(() => {
    const back = () => scrollY <= 150 && again((n) => n + 1);
    addEventListener("scroll", back, { passive: true });
    return () => removeEventListener("scroll", back);
  }, []);
  // What comes below is no news: only what stands above the first row that is shown was added since.
  const known = shown.current ?? new Set<string>();
  const top = runs.findIndex((run) => known.has(id(run)));
  const rows = top > 0 ? runs.slice(top) : runs;
  return {
    rows,
    waiting: top > 0 ? top : 0,
    show: () => {
      shown.current = null;
      scrollTo({ top: 0 });
      again((n) => n + 1);
    },
  };
}

function step(by: number): void {
  const links = [...document.querySelectorAll<HTMLElement>(".runs tbody th a")];
  const at = links.indexOf(document.activeElement as HTMLElement);
  const next = links[at === -1 ? (by > 0 ? 0 : links.length - 1) : at + by];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

function Table({ runs, flow }: { runs: readonly RunRow[]; flow: string | null }): JSX.Element {
  return (
    <table class="listing runs" role="table">
      <caption class="unseen">Runs, newest first</caption>
      <thead role="rowgroup">
        <tr role="row">
          <th scope="col" role="columnheader">Status</th>
          <th scope="col" role="columnheader">Run</th>
          {!flow && <th scope="col" role="columnheader">Flow</th>}
          <th scope="col" role="columnheader">First failure, or stuck</th>
          <th scope="col" role="columnheader">Steps</th>
          <th scope="col" role="columnheader">Started</th>
          <th scope="col" role="columnheader" class="number">Duration</th>
        </tr>
      </thead>
      <tbody role="rowgroup">
        {runs.map((run) => (
          <Row key={`${run.flowKey}\n${run.runId}`} run={run} showFlow={!flow} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ run, showFlow }: { run: RunRow; showFlow: boolean }): JSX.Element {
  const error = run.firstError;
  return (
    <tr role="row">
      <td role="cell" class="cell-status">
        <Badge look={lookOf(run)} />
      </td>
      <th scope="row" role="rowheader" class="cell-run">
        <a class="covers" href={runLink(run.flowKey, run.runId)}>
          <Id text={run.runId} />
        </a>
      </th>
      {showFlow && (
        <td role="cell" class="cell-flow">
          <a href={link("/flow", { flow: run.flowKey })}>
            <Id text={run.flowKey} />
          </a>
        </td>
      )}
      <td role="cell" class="cell-error">
        {error && (
          <span class="clamp">
            <span class="key">
              <Id text={error.stepKey} />
            </span>{" "}
            <strong>
              <Id text={error.name} />
            </strong>
            {error.message && (
              <>
                : <Id text={error.message} />
              </>
            )}
          </span>
        )}
        {!error && run.stuckStep && (
          <span class="clamp">
            <span class="key">
              <Id text={run.stuckStep.stepKey} />
            </span>{" "}
            running since <Moment time={run.stuckStep.startedAt} />
          </span>
        )}
      </td>
      <td role="cell" class="cell-steps">
        <Counts counts={run.steps as Partial<Record<Look, number>>} />
      </td>
      <td role="cell" class="cell-started">
        <Moment time={run.startedAt} />
      </td>
      <td role="cell" class="cell-duration number">
        {duration(run.durationMs)}
      </td>
    </tr>
  );
}
