// What every page shares: its title, and the words for what is loading, failed, empty or old.
import type { ComponentChildren, JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { Read } from "./data";
import { useLiveness } from "./data";
import { moment, plain } from "./text";
import { useUtc } from "./preferences";

export function useTitle(...parts: string[]): void {
  const title = [...parts.map(plain), "failpath-otel"].join(" · ");
  useEffect(() => {
    document.title = title;
  }, [title]);
}

/** Shows `children` for what was read; before that that it is loading, or why it cannot be shown. */
export function Loaded<T>({ read, children, missing }: { read: Read<T>; children: (data: T) => ComponentChildren; missing?: ComponentChildren }): JSX.Element {
  if (read.error && (read.data === undefined || read.error.status === 404)) {
    if (read.error.status === 404 && missing) return <>{missing}</>;
    return <Problem read={read} />;
  }
  if (read.data === undefined) return <Loading />;
  return (
    <div class={read.pending ? "pending" : ""} aria-busy={read.pending}>
      {read.error && <Stale read={read} />}
      {children(read.data)}
    </div>
  );
}

export function Loading(): JSX.Element {
  return (
    <p class="loading" role="status">
      Loading …
    </p>
  );
}

function Problem({ read }: { read: Read<unknown> }): JSX.Element {
  return (
    <div class="box" role="alert">
      <h2>This cannot be shown</h2>
      <p class="problem-detail">{plain(read.error?.detail ?? "")}</p>
      <button type="button" onClick={read.again}>
        Try again
      </button>
    </div>
  );
}

/** Says that what is shown is not what is: since when, and why. */
function Stale({ read }: { read: Read<unknown> }): JSX.Element {
  const utc = useUtc();
  const at = read.at === undefined ? "" : moment(new Date(read.at).toISOString(), utc).clock.slice(0, 8);
  return (
    <p class="summary is-stuck" role="status">
      <span>
        Data as of {at}. {plain(read.error?.detail ?? "")}{" "}
        <button type="button" class="link" onClick={read.again}>
          Try again
        </button>
      </span>
    </p>
  );
}

const WORDS = { live: "live", connecting: "connecting", paused: "live paused" } as const;

/** In the head of every page: whether it follows along. */
export function LiveMark(): JSX.Element {
  const state = useLiveness();
  return (
    <span class={`live-mark is-${state}`} role="status" title={state === "paused" ? "The server does not answer; the page goes on trying." : "The page follows what arrives."}>
      <i aria-hidden="true" />
      {WORDS[state]}
    </span>
  );
}
