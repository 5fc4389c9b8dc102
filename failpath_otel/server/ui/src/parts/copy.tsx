// A button that copies a text, also where the browser keeps the clipboard to secure origins.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

const TOLD_MS = 1600;

/** `what` names the text: "run id". With children these are shown, else a mark alone. */
export function Copy({ text, what, children }: { text: string | (() => string); what: string; children?: ComponentChildren }): JSX.Element {
  const [state, setState] = useState<"idle" | "copied" | "refused">("idle");
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const act = async () => {
    const done = await copy(typeof text === "string" ? text : text());
    setState(done ? "copied" : "refused");
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setState("idle"), TOLD_MS);
  };
  return (
    <button type="button" class={children ? "plain copy is-wide" : "plain copy"} data-state={state} onClick={() => void act()} title={`Copy the ${what}`}>
      <svg class="shape" viewBox="0 0 16 16" aria-hidden="true">
        {state === "copied" ? <path class="line" d="M3 8.5l3.2 3.2L13 5" /> : <path class="line" d="M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z" />}
      </svg>
      {children ?? <span class="unseen">Copy the {what}</span>}
      <span class="unseen" role="status">
        {state === "copied" ? `The ${what} is copied.` : state === "refused" ? "The browser does not let this page copy." : ""}
      </span>
    </button>
  );
}

async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

/** The old way: the only one where a page came by plain HTTP from another machine. */
function copyBySelection(text: string): boolean {
  const field = document.createElement("textarea");
  field.value = text;
  field.readOnly = true;
  field.className = "unseen";
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    field.remove();
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  }
}
