// What to do while nothing has arrived.
import type { JSX } from "preact";

const LOCAL = new Set(["127.0.0.1", "localhost", "[::1]"]);

export function Begin({ flow = "hello", step = "say-hello" }: { flow?: string; step?: string }): JSX.Element {
  const local = LOCAL.has(location.hostname);
  const key = local ? "" : ', project_key="the ingest key"';
  return (
    <>
      <p>Paste these three lines into Python. The run appears here by itself.</p>
      <pre class="paste" tabIndex={0}>
        <code>
          {`from failpath_otel import FailpathClient
failpath = FailpathClient(endpoint="${location.origin}"${key})
failpath.run(${JSON.stringify(flow)}).step(${JSON.stringify(step)}, lambda: print("hello"))`}
        </code>
      </pre>
      {local && (
        <p class="quiet">
          Where the server was started with an ingest key, that key is the client's <code>project_key</code>.
        </p>
      )}
      <p>
        A service that already exports traces can also send them here: <code>OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={location.origin}/v1/traces</code>. Spans that carry{" "}
        <code>failpath.flow.slug</code>, <code>failpath.run.id</code> and <code>failpath.step.key</code> become steps.
      </p>
      <p>
        If something should have arrived, <a href="/intake">Intake</a> says what did.
      </p>
    </>
  );
}
