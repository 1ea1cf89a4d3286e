// What the tests send: finished spans of the SDK, with attributes of every type that JavaScript has.
import { diag, SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

export const ATTRIBUTES = {
  "session.id": "session-js",
  text: "Grüße, 世界 👋",
  empty: "",
  integer: 7,
  large: 9007199254740991,
  negative: -3,
  double: 0.5,
  yes: true,
  no: false,
  texts: ["a", "b"],
  numbers: [1, 2],
  booleans: [true, false],
};

/** Finished spans named `name`, numbered; the last one has no valid id if that is asked for. */
export function finished(name, count, { broken = false } = {}) {
  const kept = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(kept)] });
  const tracer = provider.getTracer("senders", "1.0");
  for (let number = 0; number < count; number++) {
    const link = tracer.startSpan("linked").spanContext();
    const span = tracer.startSpan(name, {
      kind: SpanKind.CLIENT,
      attributes: { ...ATTRIBUTES, number },
      links: [{ context: link, attributes: { why: "retry" } }],
    });
    span.addEvent("happened", { k: 1 });
    span.setStatus({ code: SpanStatusCode.ERROR, message: "it failed" });
    span.end();
  }
  const spans = kept.getFinishedSpans();
  if (broken) {
    const last = spans.at(-1);
    const context = { ...last.spanContext(), spanId: "0000000000000000" };
    spans[spans.length - 1] = new Proxy(last, {
      get: (span, key) => (key === "spanContext" ? () => context : Reflect.get(span, key, span)),
    });
  }
  return spans;
}

/** Export spans; tells the SDK's own verdict, what it warned of, and what was sent. */
export async function exported(exporter, spans) {
  const warnings = [];
  const note = (...words) => warnings.push(words.map(said).join(" "));
  diag.setLogger({ error: note, warn: note, info() {}, debug() {}, verbose() {} }, { suppressOverrideMessage: true });
  const result = await new Promise((resolve) => exporter.export(spans, resolve));
  await exporter.shutdown();
  diag.disable();
  return {
    succeeded: result.code === 0,
    error: result.error ? String(result.error.message) : null,
    warnings,
    attributes: ATTRIBUTES,
    spans: spans.map((span) => ({ traceId: span.spanContext().traceId, spanId: span.spanContext().spanId })),
  };
}

const said = (word) => (typeof word === "string" ? word : JSON.stringify(word));
