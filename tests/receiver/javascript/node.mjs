// node node.mjs '{"exporter": "json|protobuf|grpc", "url": …, "spans": …, "headers": {…}, "compression": …}'
// Prints as JSON how the SDK saw its export.
import { OTLPTraceExporter as Grpc } from "@opentelemetry/exporter-trace-otlp-grpc";
import { OTLPTraceExporter as Json } from "@opentelemetry/exporter-trace-otlp-http";
import { OTLPTraceExporter as Protobuf } from "@opentelemetry/exporter-trace-otlp-proto";
import { exported, finished } from "./spans.mjs";

const asked = JSON.parse(process.argv[2]);
const Exporter = { json: Json, protobuf: Protobuf, grpc: Grpc }[asked.exporter];
const exporter = new Exporter({ url: asked.url, compression: asked.compression ?? "none", headers: asked.headers });
console.log(JSON.stringify(await exported(exporter, finished(asked.exporter, asked.spans, asked))));
