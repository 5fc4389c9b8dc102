import type { JSX } from "preact";

export function IntakePage(): JSX.Element {
  return <h1>Intake</h1>;
}
