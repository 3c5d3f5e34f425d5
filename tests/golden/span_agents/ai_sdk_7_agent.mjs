// Vercel's AI SDK 7 with a tool that fails once, under its OpenTelemetry package. Recorded with ai 7.0.173,
// @ai-sdk/otel 1.0.173, @ai-sdk/openai 3.0.141, zod 4 and OpenTelemetry's sdk-trace-node and exporter-trace-otlp-proto.
import { OpenTelemetry } from "@ai-sdk/otel";
import { createOpenAI } from "@ai-sdk/openai";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { generateText, registerTelemetry, stepCountIs, tool } from "ai";
import { z } from "zod";

const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(new OTLPTraceExporter())] });
provider.register();
registerTelemetry(new OpenTelemetry());
const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: "none" });
const population = tool({
  description: "How many people live in a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    if (city === "Atlantis") throw new Error("no such city");
    return { Leiden: "127000", Delft: "106000" }[city] ?? "unknown";
  },
});
const { text } = await generateText({
  model: openai.chat("policy"),
  instructions: "Use the tool.",
  prompt: process.env.QUESTION,
  tools: { population },
  stopWhen: stepCountIs(5),
  telemetry: { isEnabled: true, functionId: "geographer" },
});
console.log(text);
await provider.shutdown();
