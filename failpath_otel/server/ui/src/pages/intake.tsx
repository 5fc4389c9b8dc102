// What came in, what of it was no step and why, and what to do when nothing arrives.
import type { ComponentChildren, JSX } from "preact";
import type { IntakeCounts } from "../api";
import { useRead } from "../data";
import { Loaded, useTitle } from "../frame";
import { Begin } from "../parts/begin";
import { Ago, count, duration, Id, Moment, Prose } from "../text";
import { link } from "../url";

/** `bridge`: this server keeps no run, so this is all that it can show. */
export function IntakePage({ bridge = false }: { bridge?: boolean }): JSX.Element {
  useTitle("Intake");
  // Not every request changes a run, so this is read by the clock, too.
  const read = useRead<IntakeCounts>("/api/intake", { live: () => true, ages: () => true });
  return (
    <>
      <h1>{bridge ? "No run is kept here" : "Intake"}</h1>
      {bridge && read.data?.forward && (
        <p>
          What comes in goes on to <code>{read.data.forward.to}</code>, where the runs are.
        </p>
      )}
      <Loaded read={read}>{(intake) => <Intake intake={intake} />}</Loaded>
    </>
  );
}

function Intake({ intake }: { intake: IntakeCounts }): JSX.Element {
  const { forward, lastRequest: last, refusals, unknown, incompleteSamples, retention } = intake;
  return (
    <>
      <p class="quiet">
        Since this server started, <Ago time={intake.since} />.
      </p>
      <dl class="tiles">
        <Tile name="accepted" n={intake.accepted} says="events that were new and are stored" look="success" />
        <Tile name="duplicates" n={intake.duplicates} says="events that were known already: sent twice, or by two ways" />
        <Tile name="rejected" n={intake.rejected} says="events that broke the contract; the reasons are below" look={intake.rejected ? "error" : ""} />
        <Tile name="unmapped" n={intake.unmapped} says="spans and records that are no step: normal, where whole traces are sent here" />
        <Tile name="incomplete" n={intake.incomplete} says="spans with only some of the three attributes that make a step" look={intake.incomplete ? "missing" : ""} />
      </dl>

      <Part title="Last request">
        {last ? (
          <p>
            <Ago time={last.at} />: <code>{last.path.startsWith("/v1/") ? `POST ${last.path}` : `gRPC ${last.path}`}</code>{" "}
            {last.items !== null && <>with {count(last.items, "item")} </>}was answered{" "}
            <strong class={last.status < 300 ? "is-success" : "is-error"}>{last.status}</strong>
            {last.agent && (
              <span class="quiet">
                {" "}
                · <Id text={last.agent} />
              </span>
            )}
          </p>
        ) : (
          <div class="box">
            <p>
              <strong>No sender has called yet.</strong>
            </p>
            <Begin />
            <ul>
              <li>
                A service sends nothing: is <code>FAILPATH_DEV_ENDPOINT={location.origin}</code> set in its environment, and not <code>FAILPATH_ENABLED=false</code>?
              </li>
              <li>
                Through a Collector: does its exporter point here (<code>endpoint: {location.origin}</code>), and do its own logs name a refusal?
              </li>
              <li>A process that ends at once has to call <code>failpath.flush()</code>, or to end normally.</li>
            </ul>
          </div>
        )}
        {last && intake.accepted === 0 && intake.unmapped > 0 && (
          <p class="box">
            Spans arrive, but none of them is a step. A step carries <code>failpath.flow.slug</code>, <code>failpath.run.id</code> and <code>failpath.step.key</code>: call{" "}
            <code>run.step()</code>, or have a Collector set them.
          </p>
        )}
      </Part>

      {refusals.length > 0 && (
        <Part title="Refused">
          <Table name="Reasons of refusals" heads={["Times", "Reason", "The newest", "Last"]}>
            {refusals.map((refusal) => (
              <tr key={`${refusal.status} ${refusal.reason}`}>
                <td class="number">{refusal.count.toLocaleString("en")}</td>
                <th scope="row">
                  {refusal.status !== null && <span class="tag">whole request, {refusal.status}</span>} <Id text={refusal.reason} />
                </th>
                <td class="quiet">
                  <Prose text={refusal.sample} />
                </td>
                <td>
                  <Ago time={refusal.lastAt} />
                </td>
              </tr>
            ))}
          </Table>
        </Part>
      )}

      {unknown.length > 0 && (
        <Part title="Not in flows.json" says="Runs and steps under these names are shown all the same. Where a name is a slip, the step that was meant is missing from its runs.">
          <Table name="Names that are not declared" heads={["Flow", "Step", "Did you mean"]}>
            {unknown.map(({ flow, stepKey, nearest }) => (
              <tr key={`${flow}\n${stepKey}`}>
                <th scope="row">
                  <a href={link("/flow", { flow })}>
                    <Id text={flow} />
                  </a>
                </th>
                <td>{stepKey === null ? <span class="quiet">the flow itself</span> : <code><Id text={stepKey} /></code>}</td>
                <td>{nearest === null ? <span class="quiet">nothing is like it</span> : <code><Id text={nearest} /></code>}</td>
              </tr>
            ))}
          </Table>
        </Part>
      )}

      {incompleteSamples.length > 0 && (
        <Part title="Incomplete" says="These spans or records name a step in part only, so it is not known which step of which run they are.">
          <Table name="What incomplete spans lack" heads={["Times", "Service", "What they lack"]}>
            {incompleteSamples.map((sample) => (
              <tr key={`${sample.service} ${sample.missing.join()}`}>
                <td class="number">{sample.count.toLocaleString("en")}</td>
                <th scope="row">{sample.service === null ? <span class="quiet">unnamed</span> : <Id text={sample.service} />}</th>
                <td>
                  {sample.missing.map((name, n) => (
                    <>
                      {n > 0 && ", "}
                      <code>{name}</code>
                    </>
                  ))}
                </td>
              </tr>
            ))}
          </Table>
        </Part>
      )}

      {forward && (
        <Part title="Going on to another server">
          <p class={forward.failingSince ? "is-stuck" : ""}>
            <code>{forward.to}</code> {forward.failingSince ? <>has not taken events since <Moment time={forward.failingSince} />: {forward.lastError}</> : "takes events."}
          </p>
          <p class="quiet">
            {forward.forwarded.toLocaleString("en")} forwarded, {forward.rejected.toLocaleString("en")} rejected there, {forward.heldBack.toLocaleString("en")} held back by their senders,{" "}
            {forward.waiting.toLocaleString("en")} on their way.
          </p>
        </Part>
      )}

      {retention && (
        <Part title="Kept here">
          <p>
            {count(retention.runs, "run")}, {size(retention.sizeBytes)}
            {retention.oldestRunAt && (
              <>
                , the oldest from <Moment time={retention.oldestRunAt} />
              </>
            )}
            . {limits(retention.retainSeconds, retention.maxSizeBytes)}
            {retention.deletedRuns > 0 && ` ${count(retention.deletedRuns, "run")} deleted since the start.`}
          </p>
        </Part>
      )}
    </>
  );
}

function limits(seconds: number | null, bytes: number | null): string {
  if (seconds === null && bytes === null) return "Nothing is deleted: serve --retain 7d --max-size 2GB sets limits.";
  const parts = [...(seconds === null ? [] : [`older than ${duration(seconds * 1000)}`]), ...(bytes === null ? [] : [`beyond ${size(bytes)}`])];
  return `Runs ${parts.join(" or ")} are deleted.`;
}

function size(bytes: number): string {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let n = bytes;
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) {
    n /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? n : n.toFixed(n < 10 ? 1 : 0)} ${units[unit]}`;
}

function Tile({ name, n, says, look = "" }: { name: string; n: number; says: string; look?: string }): JSX.Element {
  return (
    <div class="sheet tile">
      <dt>{name}</dt>
      <dd class={look && `is-${look}`}>{n.toLocaleString("en")}</dd>
      <dd class="quiet">{says}</dd>
    </div>
  );
}

function Part({ title, says, children }: { title: string; says?: string; children: ComponentChildren }): JSX.Element {
  const id = `part-${title.replaceAll(" ", "-")}`;
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {says && <p class="quiet">{says}</p>}
      {children}
    </section>
  );
}

function Table({ name, heads, children }: { name: string; heads: readonly string[]; children: ComponentChildren }): JSX.Element {
  return (
    <div class="scroll" role="region" aria-label={name} tabIndex={0}>
      <table class="listing">
        <thead>
          <tr>
            {heads.map((head) => (
              <th key={head} scope="col" class={head === "Times" ? "number" : ""}>
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
