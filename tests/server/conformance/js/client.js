// Makes runs of a flow with the OpenTelemetry JS SDK: node client.js PROTOCOL RUNS. Where to is told by OTEL_EXPORTER_OTLP_….
// Each step is a span by the three attributes; its start goes as a log record, before the span ends. Exits with 1 if an export failed.
"use strict";

const { context, diag, DiagLogLevel, SpanStatusCode, trace } = require("@opentelemetry/api");
const { LoggerProvider, BatchLogRecordProcessor } = require("@opentelemetry/sdk-logs");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BasicTracerProvider, BatchSpanProcessor } = require("@opentelemetry/sdk-trace-base");

const [protocol, runs] = [process.argv[2], Number(process.argv[3])];
const suffix = { "http/json": "http", "http/protobuf": "proto", grpc: "grpc" }[protocol];
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${suffix}`);
const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${suffix}`);

let failed = false;
const say = (...words) => {
  failed = true;
  console.error(...words);
};
// Warnings tell of refused items (partial success).
diag.setLogger({ error: say, warn: say, info() {}, debug() {}, verbose() {} }, DiagLogLevel.WARN);

const resource = resourceFromAttributes({ "service.name": "till" });
const spans = new BasicTracerProvider({ resource, spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())] });
const records = new LoggerProvider({
  resource,
  processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter(), scheduledDelayMillis: 50 })],
});
const tracer = spans.getTracer("till", "1.0.0");
const logger = records.getLogger("till");

function step(runId, key, act, metadata = {}) {
  const attributes = { "failpath.flow.slug": "checkout", "failpath.run.id": runId, "failpath.step.key": key };
  for (const [name, value] of Object.entries(metadata)) {
    attributes[`failpath.metadata.${name}`] = value;
  }
  const span = tracer.startSpan(key, { attributes });
  const eventName = "failpath.step";
  const started = { ...attributes, "failpath.step.status": "running" };
  logger.emit({ eventName, timestamp: span.startTime, attributes: started, context: trace.setSpan(context.active(), span) });
  try {
    act(span);
  } catch (error) {
    span.recordException(error);
    span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
  }
  span.end();
}

class CardDeclined extends Error {
  name = "shop.CardDeclined";
}

function checkout(runId, number) {
  step(runId, "validate-cart", () => {}, { number, total: 12.5, gift: true, items: ["a", "Grüße"] });
  step(runId, "charge-card", () => {
    if (number % 2) {
      throw new CardDeclined("no funds");
    }
  });
  step(runId, "send-receipt", (span) => {
    span.setAttributes({ "failpath.step.status": "skipped", "failpath.step.skip_reason": "opted out" });
  });
}

async function main() {
  for (let number = 0; number < runs; number += 1) {
    checkout(`js-${number}`, number);
  }
  tracer.startSpan("a query").end();
  const ended = await Promise.allSettled([records.forceFlush(), spans.forceFlush(), records.shutdown(), spans.shutdown()]);
  for (const error of ended.flatMap(({ reason }) => reason ?? [])) {
    say(error.message, error.code);
  }
  process.exitCode = failed ? 1 : 0;
}

main();
