import type { JSX } from "preact";

export function FlowPage(_: { params: URLSearchParams }): JSX.Element {
  return <h1>FlowPage</h1>;
}
