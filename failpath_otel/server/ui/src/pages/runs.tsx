import type { JSX } from "preact";

export function RunsPage(_: { params: URLSearchParams }): JSX.Element {
  return <h1>RunsPage</h1>;
}
