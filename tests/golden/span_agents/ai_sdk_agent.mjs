// Vercel's AI SDK with a tool that fails once, under its own telemetry. Recorded with ai 6.0.326,
// @ai-sdk/openai 3.0.141, zod 4 and OpenTelemetry's sdk-trace-node and exporter-trace-otlp-proto.
import { createOpenAI } from "@ai-sdk/openai";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { generateText, stepCountIs, tool } from "ai";
import { z } from "zod";

const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(new OTLPTraceExporter())] });
provider.register();
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
  system: "Use the tool.",
  prompt: process.env.QUESTION,
  tools: { population },
  stopWhen: stepCountIs(5),
  experimental_telemetry: { isEnabled: true, functionId: "geographer", metadata: { sessionId: "c1" } },
});
console.log(text);
await provider.shutdown();
