// The OpenAI Agents SDK for Node with a tool that fails once, under OpenInference; the Responses API is its default.
// Recorded with @openai/agents 0.20.0, @arizeai/openinference-instrumentation-openai-agents 0.2.15, zod 4 and
// OpenTelemetry's sdk-trace-node and exporter-trace-otlp-proto.
import { OpenAIAgentsInstrumentation } from "@arizeai/openinference-instrumentation-openai-agents";
import * as agents from "@openai/agents";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { z } from "zod";

const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(new OTLPTraceExporter())] });
provider.register();
new OpenAIAgentsInstrumentation({ tracerProvider: provider }).manuallyInstrument(agents);
const population = agents.tool({
  name: "population",
  description: "How many people live in a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => {
    if (city === "Atlantis") throw new Error("no such city");
    return { Leiden: "127000", Delft: "106000" }[city] ?? "unknown";
  },
  errorFunction: (_context, error) => `An error occurred: ${error.message}`,
});
const agent = new agents.Agent({
  name: "geographer",
  instructions: "Use the tool.",
  model: "policy",
  tools: [population],
});
console.log((await agents.run(agent, process.env.QUESTION)).finalOutput);
await provider.shutdown();
