// The keyboard: what each page offers, and the list of it all that `?` shows.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

export interface Key {
  keys: string;
  does: string;
  act: (event: KeyboardEvent) => void;
}

const held: Key[][] = [];
let prefix: string | null = null;
let forget: ReturnType<typeof setTimeout> | undefined;

/** Offers keys while the component is shown. `keys` is one key or two in a row, such as "g f"; later ones come before earlier ones. */
export function useKeys(offered: Key[]): void {
  const latest = useRef(offered);
  latest.current = offered;
  useEffect(() => {
    const own: Key[] = [];
    held.push(own);
    // Read at the press, so that a key acts on what is shown then.
    own.push(...latest.current.map((key, index) => ({ ...key, act: (event: KeyboardEvent) => latest.current[index]?.act(event) })));
    return () => void held.splice(held.indexOf(own), 1);
  }, []);
}

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.matches("input, select, textarea") || target.isContentEditable);
}

export function listen(): () => void {
  const pressed = (event: KeyboardEvent) => {
    if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    if (typing(event.target)) {
      if (event.key === "Escape") (event.target as HTMLElement).blur();
      return;
    }
    const wanted = prefix ? `${prefix} ${event.key}` : event.key;
    const all = held.flat();
    const found = all.findLast((key) => key.keys === wanted);
    clearTimeout(forget);
    prefix = null;
    if (found) {
      event.preventDefault();
      found.act(event);
    } else if (all.some((key) => key.keys.startsWith(`${event.key} `))) {
      prefix = event.key;
      forget = setTimeout(() => (prefix = null), 1500);
    }
  };
  addEventListener("keydown", pressed);
  return () => removeEventListener("keydown", pressed);
}

const NAMES: Record<string, string> = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };

function Keys({ keys }: { keys: string }): JSX.Element {
  return (
    <>
      {keys.split(" ").map((key, index) => (
        <>
          {index > 0 && " then "}
          <kbd>{NAMES[key] ?? key}</kbd>
        </>
      ))}
    </>
  );
}

/** The dialog that lists the keys, opened by `?`. */
export function Help(): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const [listed, setListed] = useState<Key[]>([]);
  const show = () => {
    const seen = new Set<string>();
    setListed(
      held
        .flat()
        .toReversed()
        .filter((key) => !seen.has(key.keys) && seen.add(key.keys))
        .toReversed(),
    );
    dialog.current?.showModal();
  };
  useKeys([{ keys: "?", does: "Lists the keys", act: show }]);
  return (
    <>
      <button type="button" class="plain" onClick={show} title="Keyboard (?)" aria-haspopup="dialog">
        <kbd aria-hidden="true">?</kbd>
        <span class="unseen">Keyboard</span>
      </button>
      <dialog ref={dialog} aria-labelledby="keys-title" onClick={(event) => event.target === dialog.current && dialog.current?.close()}>
        <form method="dialog">
          <h2 id="keys-title">Keyboard</h2>
          <dl class="keys">
            {listed.map((key) => (
              <div key={key.keys}>
                <dt>
                  <Keys keys={key.keys} />
                </dt>
                <dd>{key.does}</dd>
              </div>
            ))}
          </dl>
          <button type="submit">Close</button>
        </form>
      </dialog>
    </>
  );
}
