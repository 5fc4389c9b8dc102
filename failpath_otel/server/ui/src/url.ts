// The whole view stands in the address: which page, which filters, which step is open. Ids are arbitrary text, so they travel as parameters.
import { useEffect, useState } from "preact/hooks";

export interface Place {
  path: string;
  params: URLSearchParams;
}

type Values = Record<string, string | number | null | undefined>;

const listeners = new Set<() => void>();

export function place(): Place {
  return { path: location.pathname, params: new URLSearchParams(location.search) };
}

/** `path` with the values that are set as its query. */
export function link(path: string, values: Values = {}): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") params.set(name, String(value));
  }
  const query = params.toString();
  return query ? `${path}?${query}` : path;
}

/** The present address with some values changed; null takes one out. */
export function changed(values: Values): string {
  const { path, params } = place();
  return link(path, { ...Object.fromEntries(params), ...values });
}

export function runLink(flow: string, runId: string, values: Values = {}): string {
  return link("/run", { flow, run_id: runId, ...values });
}

/** Goes there without loading the page again. `replace` leaves no entry in the history: for filters as they are typed. */
export function navigate(href: string, { replace = false } = {}): void {
  if (href === location.pathname + location.search) return;
  const leaves = href.split("?", 1)[0] !== location.pathname;
  history[replace ? "replaceState" : "pushState"](null, "", href);
  for (const listener of [...listeners]) listener();
  if (leaves) {
    scrollTo(0, 0);
    // A screen reader starts at the new page's content, as after a load.
    document.getElementById("content")?.focus({ preventScroll: true });
  }
}

export function usePlace(): Place {
  const [current, setCurrent] = useState(place);
  useEffect(() => {
    const moved = () => setCurrent(place());
    listeners.add(moved);
    addEventListener("popstate", moved);
    return () => {
      listeners.delete(moved);
      removeEventListener("popstate", moved);
    };
  }, []);
  return current;
}

/** Clicks on links of ours do not load the page; with a modifier key or another target the browser does what it does. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const anchor = (event.target as Element | null)?.closest?.("a");
  const href = anchor?.getAttribute("href");
  if (!anchor || !href || anchor.target || anchor.hasAttribute("download")) return;
  if (!PAGES.has(href.split(/[?#]/, 1)[0] ?? "")) return;
  event.preventDefault();
  navigate(href);
}

export const PAGES: ReadonlySet<string> = new Set(["/", "/flow", "/runs", "/run", "/intake"]);
