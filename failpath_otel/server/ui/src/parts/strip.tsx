// The last runs of a flow as a row of bars, the newest at the right. A bar's height and filling tell the status as its colour does.
import type { JSX } from "preact";
import type { RunMark } from "../api";
import { lookOf } from "../status";
import { duration, moment, plain } from "../text";
import { runLink } from "../url";
import { useUtc } from "../preferences";

/** Arrow keys go from link to link within a list of which only one takes the tab key. */
export function rove(event: KeyboardEvent): void {
  const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  if (step === undefined || !(event.target instanceof HTMLElement)) return;
  const links = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("a")];
  const next = links[links.indexOf(event.target) + step];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

export function Strip({ flow, runs, places = 30 }: { flow: string; runs: readonly RunMark[]; places?: number }): JSX.Element {
  const utc = useUtc();
  const shown = runs.slice(0, places).toReversed();
  return (
    <ol class="strip" aria-label={`The last ${shown.length} runs, the newest at the end`} onKeyDown={rove}>
      {Array.from({ length: places - shown.length }, (_, n) => (
        <li key={`none-${n}`} aria-hidden="true" class="none" />
      ))}
      {shown.map((run, n) => {
        const look = lookOf(run);
        const says = `${plain(run.runId)}: ${look}, ${moment(run.startedAt, utc).clock}${run.durationMs === null ? "" : `, ${duration(run.durationMs)}`}`;
        return (
          <li key={run.runId}>
            <a class={`bar is-${look}`} href={runLink(flow, run.runId)} title={says} aria-label={says} tabIndex={n === shown.length - 1 ? 0 : -1} />
          </li>
        );
      })}
    </ol>
  );
}
