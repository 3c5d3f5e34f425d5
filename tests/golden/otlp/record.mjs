// Posts one span and one log record with the official JavaScript exporters (JSON), to the endpoint in argv[2].
// Needs @opentelemetry/{api,api-logs,resources,sdk-trace-base,sdk-logs,exporter-trace-otlp-http,exporter-logs-otlp-http}.
import { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, trace } from "@opentelemetry/api";
import { SeverityNumber } from "@opentelemetry/api-logs";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-http";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { LoggerProvider, SimpleLogRecordProcessor } from "@opentelemetry/sdk-logs";
import { BasicTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

const endpoint = process.argv[2];
const resource = resourceFromAttributes({ "service.name": "golden" });
const ids = { generateTraceId: () => "1e7de" + "b".repeat(23) + "0001", generateSpanId: () => "00f067aa0ba902b7" };
const exporter = new OTLPTraceExporter({ url: `${endpoint}/v1/traces` });
const tracers = new BasicTracerProvider({ resource, idGenerator: ids, spanProcessors: [new SimpleSpanProcessor(exporter)] });
const parent = trace.setSpanContext(ROOT_CONTEXT, {
  traceId: "1e7de" + "b".repeat(23) + "0001", spanId: "00f067aa0ba902b8", traceFlags: TraceFlags.SAMPLED, isRemote: true,
});
const attributes = {
  "gen_ai.operation.name": "chat", "gen_ai.request.model": "policy", "gen_ai.usage.input_tokens": 12,
  big: 9007199254740991, share: 0.5, yes: true, list: ["a", "b"], unicode: "Grüße, 世界",
};
const tracer = tracers.getTracer("golden", "1");
const startTime = [1700000000, 123456789];
const span = tracer.startSpan("chat policy", { kind: SpanKind.CLIENT, startTime, attributes }, parent);
span.addEvent("gen_ai.choice", { index: 0 }, [1700000000, 200000000]);
span.setStatus({ code: SpanStatusCode.ERROR, message: "it broke" });
span.end([1700000001, 987654321]);

const logs = new LoggerProvider({
  resource, processors: [new SimpleLogRecordProcessor({ exporter: new OTLPLogExporter({ url: `${endpoint}/v1/logs` }) })],
});
logs.getLogger("golden", "1").emit({
  eventName: "gen_ai.evaluation.result", timestamp: startTime, observedTimestamp: startTime, context: trace.setSpan(parent, span),
  severityNumber: SeverityNumber.INFO, body: { why: "good" },
  attributes: { "gen_ai.evaluation.name": "quality", "gen_ai.evaluation.score.value": 0.75 },
});
await tracers.forceFlush();
await logs.forceFlush();
