// The frame around the pages: where one can go, what the keyboard does everywhere, and whether the page is live.
import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { About } from "./api";
import { useRead } from "./data";
import { LiveMark } from "./frame";
import { Help, listen, useKeys } from "./keys";
import { start } from "./live";
import { FlowPage } from "./pages/flow";
import { FlowsPage } from "./pages/flows";
import { IntakePage } from "./pages/intake";
import { RunPage } from "./pages/run";
import { RunsPage } from "./pages/runs";
import { switchTheme, switchUtc, useUtc } from "./preferences";
import { followLinks, navigate, usePlace } from "./url";

const PLACES = [
  { path: "/", name: "Flows", keys: "g f" },
  { path: "/runs", name: "Runs", keys: "g r" },
  { path: "/intake", name: "Intake", keys: "g i" },
] as const;

export function App(): JSX.Element {
  const { path, params } = usePlace();
  const utc = useUtc();
  const about = useRead<About>("/api/about");
  const keeps = about.data?.keepsRuns ?? about.error !== undefined;
  useEffect(listen, []);
  useEffect(() => {
    // A bridge without a store has no news; whether this is one is known by the first answer.
    if (about.error || about.data?.keepsRuns) start();
  }, [about.error, about.data?.keepsRuns]);
  useKeys([
    ...PLACES.map(({ path: to, name, keys }) => ({ keys, does: `${name}`, act: () => navigate(to) })),
    { keys: "g e", does: "Runs that failed", act: () => navigate("/runs?status=error") },
    { keys: "t", does: "Dark or light", act: switchTheme },
    { keys: "u", does: "Times in UTC or in this zone", act: switchUtc },
  ]);
  const within = path === "/run" ? "/runs" : path === "/flow" ? "/" : path;
  return (
    <div onClick={followLinks}>
      <a class="skip-link" href="#content">
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href="/">
          <svg class="brand-mark" viewBox="0 0 16 16" aria-hidden="true">
            <path d="M2 12h4l4-8h4" />
            <circle cx="2.5" cy="12" r="1.7" />
            <circle cx="13.5" cy="4" r="1.7" />
          </svg>
          failpath-otel
        </a>
        <nav class="places" aria-label="Pages">
          {PLACES.filter(({ path: to }) => about.data?.keepsRuns !== false || to === "/intake").map(({ path: to, name }) => (
            <a key={to} href={to} {...(within === to ? { "aria-current": path === to ? "page" : "true" } : {})}>
              {name}
            </a>
          ))}
        </nav>
        <span class="aside">
          {about.data?.keepsRuns !== false && <LiveMark />}
          <button type="button" class="plain" onClick={switchUtc} title="Times in UTC or in this zone (u)">
            {utc ? "UTC" : "local"}
            <span class="unseen"> times</span>
          </button>
          <button type="button" class="plain" onClick={switchTheme} title="Dark or light (t)">
            <svg class="shape" viewBox="0 0 16 16" aria-hidden="true">
              <circle class="line" cx="8" cy="8" r="6.2" />
              <path class="fill" d="M8 1.8a6.2 6.2 0 0 1 0 12.4z" />
            </svg>
            <span class="unseen">Dark or light</span>
          </button>
          <Help />
        </span>
      </header>
      <main id="content" tabIndex={-1}>
        {about.data?.keepsRuns === false && <IntakePage bridge />}
        {keeps && path === "/" && <FlowsPage />}
        {keeps && path === "/flow" && <FlowPage key={params.get("flow")} params={params} />}
        {keeps && path === "/runs" && <RunsPage params={params} />}
        {keeps && path === "/run" && <RunPage key={`${params.get("flow")} ${params.get("run_id")}`} params={params} />}
        {keeps && path === "/intake" && <IntakePage />}
      </main>
    </div>
  );
}
