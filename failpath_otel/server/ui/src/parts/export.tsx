// A run as a file: one HTML page that needs nothing but itself, or JSON.
import type { JSX } from "preact";
import { render } from "preact";
import type { RunDetail } from "../api";
import { Badge, lookOf } from "../status";
import { Id, millisOf, Moment, plain } from "../text";
import { link, runLink } from "../url";
import { Graph } from "./graph";
import { RunFacts, Summary } from "./run-head";
import { StepPanel } from "./step-panel";
import { graphNode, inOrder } from "./story";
import { Waterfall } from "./waterfall";

const WIDTH = 1080;
/** Nothing in the file may run or be fetched, whatever is in the run. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

interface Props {
  run: RunDetail;
  now: number;
  address: string;
}

function Report({ run, now, address }: Props): JSX.Element {
  const steps = inOrder(run);
  const anchor = (key: string) => `#step-${steps.findIndex(({ stepKey }) => stepKey === key) + 1}`;
  const begin = millisOf(run.startedAt);
  return (
    <main class="report">
      <h1>
        <Id text={run.runId} />
      </h1>
      <p>
        <Badge look={lookOf(run)} /> <Id text={run.flowName} />{" "}
        {run.flowName !== run.flowKey && (
          <span class="key">
            <Id text={run.flowKey} />
          </span>
        )}
      </p>
      <RunFacts run={run} now={now} />
      <Summary
        run={run}
        now={now}
        stepLink={(step) => (
          <a href={anchor(step.stepKey)}>
            <Id text={step.label} />
          </a>
        )}
      />
      <Graph nodes={run.steps.map((step) => graphNode(step, now))} edges={run.edges} width={WIDTH} />
      <h2>When each step ran</h2>
      <Waterfall run={run} now={now} selected={null} hidden={false} hrefOf={anchor} />
      {steps.map((step, index) => (
        <section key={step.stepKey} id={`step-${index + 1}`} class="panel sheet">
          <StepPanel step={step} now={now} begin={begin} traceUrl={null} whole />
        </section>
      ))}
      <footer class="quiet">
        As of <Moment time={new Date(now).toISOString()} />, from{" "}
        <a href={address}>
          <Id text={address} />
        </a>
      </footer>
    </main>
  );
}

/** The run as a page of its own. Throws where the style sheet cannot be had. */
export async function asHtml(run: RunDetail, now: number): Promise<string> {
  const answer = await fetch("/static/app.css");
  if (!answer.ok) throw new Error(`the style sheet: ${answer.status}`);
  const css = await answer.text();
  const page = document.implementation.createHTMLDocument(plain(`${run.runId} · ${run.flowName}`));
  page.documentElement.lang = "en";
  const theme = document.documentElement.dataset["theme"];
  if (theme) page.documentElement.dataset["theme"] = theme;
  const meta = (values: Record<string, string>) => {
    const element = page.createElement("meta");
    for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
    return element;
  };
  page.head.prepend(
    meta({ charset: "utf-8" }),
    meta({ "http-equiv": "Content-Security-Policy", content: POLICY }),
    meta({ name: "viewport", content: "width=device-width, initial-scale=1" }),
    meta({ name: "color-scheme", content: "light dark" }),
  );
  const place = document.createElement("div");
  render(<Report run={run} now={now} address={location.origin + runLink(run.flowKey, run.runId)} />, place);
  page.body.append(page.importNode(place, true));
  render(null, place);
  // As an element it would be refused by the policy of this page, of which it is no part.
  return `<!doctype html>\n${page.documentElement.outerHTML.replace("</head>", () => `<style>${css.replaceAll("</", "<\\/")}</style></head>`)}\n`;
}

/** The run and every event of it, as the server wrote them: read as text, so that no number is rounded. */
export async function asJson(run: RunDetail, now: number): Promise<string> {
  const named = { flow: run.flowKey, run_id: run.runId };
  const [detail, events] = await Promise.all([link("/api/run", named), link("/api/run/events", named)].map(textOf));
  return `{"exportedAt":${JSON.stringify(new Date(now).toISOString())},"run":${detail},${(events ?? "{}").trim().slice(1)}\n`;
}

async function textOf(path: string): Promise<string> {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.text();
}

/** Hands the text to the browser as a file. */
export function save(run: RunDetail, text: string, kind: "html" | "json"): void {
  const safe = (part: string) => part.replace(/[^A-Za-z0-9._-]+/g, "-").slice(0, 60);
  const address = URL.createObjectURL(new Blob([text], { type: kind === "html" ? "text/html" : "application/json" }));
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = `run-${safe(run.flowKey)}-${safe(run.runId)}.${kind}`;
  anchor.click();
  // The browser reads it after this call.
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
