// Which runs have news: one stream a tab, closed while the tab is hidden, with what was missed made up for.
import type { Change } from "./api";

export type Liveness = "connecting" | "live" | "paused";
type Follower = (changes: readonly Change[]) => void;

/** Stands for "anything may have changed": after a time without the stream. */
const ANYTHING: Change = { id: 0, flow: null, runId: null };

const followers = new Set<Follower>();
const watchers = new Set<(state: Liveness) => void>();
let source: EventSource | null = null;
let state: Liveness = "connecting";
let missed = false;
let started = false;
let gathered: Change[] = [];

/** Starts to follow. */
export function start(): void {
  if (started) return;
  started = true;
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", () => source === null && !document.hidden && open());
  if (!document.hidden) open();
}

export function liveness(): Liveness {
  return state;
}

export function onLiveness(watcher: (state: Liveness) => void): () => void {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

export function onChanges(follower: Follower): () => void {
  followers.add(follower);
  return () => followers.delete(follower);
}

/** True where the changes may concern this flow, and this run of it. */
export function concerns(changes: readonly Change[], flow?: string | null, runId?: string | null): boolean {
  return changes.some(
    (change) => change.flow === null || ((!flow || change.flow === flow) && (!runId || change.runId === runId)),
  );
}

function open(): void {
  if (source) return;
  set("connecting");
  const own = (source = new EventSource("/api/live"));
  own.onopen = () => {
    set("live");
    if (missed) tell(ANYTHING);
    missed = true;
  };
  own.addEventListener("run", (message) => tell(JSON.parse((message as MessageEvent<string>).data) as Change));
  own.onerror = () => {
    set("paused");
    // The browser tries again by itself, unless it was refused for good: then we do, until the server is back.
    if (own.readyState === EventSource.CLOSED && source === own) {
      source = null;
      setTimeout(() => document.hidden || open(), 2000);
    }
  };
}

function close(): void {
  source?.close();
  source = null;
  set("paused");
}

function tell(change: Change): void {
  gathered.push(change);
  // A burst is one piece of news: each reader reads once.
  if (gathered.length === 1) {
    queueMicrotask(() => {
      const news = gathered;
      gathered = [];
      for (const follower of [...followers]) follower(news);
    });
  }
}

function set(next: Liveness): void {
  if (state === next) return;
  state = next;
  for (const watcher of [...watchers]) watcher(next);
}
