// LangChain's agent for Node with a tool that fails once, under OpenInference. Recorded with langchain 1.5.14,
// @langchain/openai 1.5.8, @langchain/core 1.4.0, @arizeai/openinference-instrumentation-langchain 4.1.1, zod 4 and
// OpenTelemetry's sdk-trace-node and exporter-trace-otlp-proto.
import { LangChainInstrumentation } from "@arizeai/openinference-instrumentation-langchain";
import * as callbacks from "@langchain/core/callbacks/manager";
import { ChatOpenAI } from "@langchain/openai";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { createAgent, createMiddleware, tool, ToolMessage } from "langchain";
import { z } from "zod";

const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(new OTLPTraceExporter())] });
provider.register();
new LangChainInstrumentation().manuallyInstrument(callbacks);
const population = tool(
  ({ city }) => {
    if (city === "Atlantis") throw new Error("no such city");
    return { Leiden: "127000", Delft: "106000" }[city] ?? "unknown";
  },
  { name: "population", description: "How many people live in a city.", schema: z.object({ city: z.string() }) },
);
const showErrors = createMiddleware({
  name: "ShowErrors",
  wrapToolCall: async (request, handler) => {
    try {
      return await handler(request);
    } catch (error) {
      return new ToolMessage({ content: `Tool error: ${error.message}`, tool_call_id: request.toolCall.id });
    }
  },
});
const agent = createAgent({
  model: new ChatOpenAI({ model: "policy" }),
  tools: [population],
  name: "geographer",
  systemPrompt: "Use the tool.",
  middleware: [showErrors],
});
const { messages } = await agent.invoke({ messages: [{ role: "user", content: process.env.QUESTION }] });
console.log(messages.at(-1).content);
await provider.shutdown();
