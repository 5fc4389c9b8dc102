// Reads of the API: what is shown stays while it is read anew, what fails says so, and a reply that comes late is not shown.
import { useEffect, useReducer, useRef, useState } from "preact/hooks";
import type { Change } from "./api";
import { liveness, onChanges, onLiveness, type Liveness } from "./live";

/** Between two reads of the same thing, however much happens. */
const LEAST_MS = 400;
/** What follows from the clock alone (stuck, missing, the quiet window) is read anew so often. */
const CLOCK_MS = 5000;

export interface Failure {
  status: number;
  detail: string;
}

export interface Read<T> {
  /** Undefined until the first answer: that is loading, and not empty. */
  data: T | undefined;
  error: Failure | undefined;
  /** When `data` was read, by this browser's clock. */
  at: number | undefined;
  /** True while what is shown belongs to an earlier address. */
  pending: boolean;
  again: () => void;
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  let answer: Response;
  try {
    answer = await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store", ...(signal ? { signal } : {}) });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw { status: 0, detail: "The server does not answer." } satisfies Failure;
  }
  if (answer.ok) return (await answer.json()) as T;
  let detail = `The server answered ${answer.status}.`;
  try {
    detail = ((await answer.json()) as { detail?: string }).detail ?? detail;
  } catch {
    // No problem document: the status has to do.
  }
  throw { status: answer.status, detail } satisfies Failure;
}

interface Options<T> {
  /** Which news concern this read; none: it is not live. */
  live?: (changes: readonly Change[]) => boolean;
  /** True while what was read changes with the clock. */
  ages?: (data: T) => boolean;
}

/** Reads `path`, and reads it again on news. A null path reads nothing. */
export function useRead<T>(path: string | null, options: Options<T> = {}): Read<T> {
  const [state, setState] = useState<{ path: string | null; data?: T; error?: Failure; at?: number }>({ path: null });
  const latest = useRef(options);
  latest.current = options;
  const asks = useRef<() => void>(() => undefined);

  useEffect(() => {
    if (path === null) return undefined;
    let ended = false;
    let reading: AbortController | null = null;
    let wanted = false;
    let last = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let clock: ReturnType<typeof setTimeout> | undefined;

    const read = async () => {
      timer = undefined;
      wanted = false;
      last = performance.now();
      clearTimeout(clock);
      reading = new AbortController();
      try {
        const data = await get<T>(path, reading.signal);
        if (ended) return;
        setState({ path, data, at: Date.now() });
        if (latest.current.ages?.(data)) clock = setTimeout(() => document.hidden || ask(), CLOCK_MS);
      } catch (error) {
        if (ended || (error as Error).name === "AbortError") return;
        const failure = error as Failure;
        setState((before) => (before.path === path && before.data !== undefined && failure.status !== 404 ? { ...before, error: failure } : { path, error: failure }));
        // Only where nothing else would: the stream tells when the server is back.
        if (!latest.current.live) clock = setTimeout(ask, CLOCK_MS);
      } finally {
        reading = null;
        if (wanted && !ended) ask();
      }
    };
    const ask = () => {
      if (ended || timer !== undefined) return;
      if (reading) {
        wanted = true;
        return;
      }
      timer = setTimeout(read, Math.max(0, last + LEAST_MS - performance.now()));
    };
    asks.current = ask;
    const shown = () => !document.hidden && latest.current.ages && ask();
    const unfollow = onChanges((changes) => latest.current.live?.(changes) && ask());
    document.addEventListener("visibilitychange", shown);
    void read();
    return () => {
      ended = true;
      reading?.abort();
      clearTimeout(timer);
      clearTimeout(clock);
      unfollow();
      document.removeEventListener("visibilitychange", shown);
    };
  }, [path]);

  const current = state.path === path;
  return {
    data: state.data,
    error: current ? state.error : undefined,
    at: state.at,
    pending: path !== null && !current,
    again: () => asks.current(),
  };
}

export function useLiveness(): Liveness {
  const [state, set] = useState(liveness);
  useEffect(() => {
    const unfollow = onLiveness(set);
    // It may have changed between the first picture and now.
    set(liveness());
    return unfollow;
  }, []);
  return state;
}

/** Renders again every so often, for words such as "3 s ago". */
export function useTick(millis: number): void {
  const [, tick] = useReducer((n: number) => n + 1, 0);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || tick(null), millis);
    return () => clearInterval(timer);
  }, [millis]);
}
