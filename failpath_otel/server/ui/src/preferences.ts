// What a reader chose for this browser: the scheme, and whether times are UTC.
import { useEffect, useState } from "preact/hooks";

type Name = "theme" | "utc";
const listeners = new Set<() => void>();

function stored(name: Name): string | null {
  try {
    return localStorage.getItem(`failpath-${name}`);
  } catch {
    return null; // a browser may forbid it
  }
}

function store(name: Name, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(`failpath-${name}`);
    else localStorage.setItem(`failpath-${name}`, value);
  } catch {
    // It holds for this page then.
  }
  for (const listener of [...listeners]) listener();
}

let utc = stored("utc") === "1";
let theme = stored("theme");

export function applyTheme(): void {
  if (theme === "dark" || theme === "light") document.documentElement.dataset["theme"] = theme;
  else delete document.documentElement.dataset["theme"];
}

/** From what is seen now to the other one. */
export function switchTheme(): void {
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  theme = dark ? "light" : "dark";
  store("theme", theme);
  applyTheme();
}

export function switchUtc(): void {
  utc = !utc;
  store("utc", utc ? "1" : null);
}

export function useUtc(): boolean {
  const [value, set] = useState(utc);
  useEffect(() => {
    const listener = () => set(utc);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return value;
}
