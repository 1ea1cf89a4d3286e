// What the browser's tests call: the SDK's exporters, which use fetch with keepalive, and sendBeacon by hand.
import { OTLPTraceExporter as Json } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as Protobuf } from "@opentelemetry/exporter-trace-otlp-proto";
import { JsonTraceSerializer } from "@opentelemetry/otlp-transformer";
import { exported, finished } from "./spans.mjs";

globalThis.send = (asked) => {
  const exporter = new { json: Json, protobuf: Protobuf }[asked.exporter]({ url: asked.url, headers: asked.headers });
  return exported(exporter, finished(asked.exporter, asked.spans, asked));
};

/** Send spans in the moment in which the page is left; nobody is there to read the answer. */
globalThis.sendWhenLeft = (asked) => {
  const spans = finished(asked.by, asked.spans);
  const body = new Blob([JsonTraceSerializer.serializeRequest(spans)], { type: "application/json" });
  addEventListener("pagehide", () => {
    if (asked.by === "beacon") navigator.sendBeacon(asked.url, body);
    else fetch(asked.url, { method: "POST", body, keepalive: true });
  });
};
