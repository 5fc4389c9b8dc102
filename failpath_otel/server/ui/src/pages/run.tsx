import type { JSX } from "preact";

export function RunPage(_: { params: URLSearchParams }): JSX.Element {
  return <h1>RunPage</h1>;
}
