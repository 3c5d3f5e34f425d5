// What an agent written for Node does with the official client; prints what it saw as one JSON object.
// Usage: node client.mjs BASE_URL API_KEY

import OpenAI, { AuthenticationError, BadRequestError } from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const hello = [{ role: "user", content: "Say hi" }];
const weather = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};

async function plain() {
  const { data, request_id } = await client.chat.completions
    .create({ model: "policy", messages: hello, n: 2, seed: 7, logprobs: true })
    .withResponse();
  return {
    request_id,
    model: data.model,
    texts: data.choices.map((choice) => choice.message.content),
    logprobs: data.choices[0].logprobs.content.map((token) => token.logprob),
    usage: data.usage.total_tokens,
  };
}

async function streamed() {
  const stream = await client.chat.completions.create({
    model: "policy",
    messages: hello,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let finish = null;
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  return { text, finish, usage: usage.total_tokens };
}

async function tools() {
  const turns = [{ role: "user", content: "What is the weather in Oslo?" }];
  const asked = await client.chat.completions
    .stream({ model: "policy", messages: turns, tools: [weather], tool_choice: "required" })
    .finalChatCompletion();
  const message = asked.choices[0].message;
  const [call] = message.tool_calls;
  turns.push(message, { role: "tool", tool_call_id: call.id, content: "cold" });
  const answer = await client.chat.completions.create({ model: "policy", messages: turns, tools: [weather] });
  return {
    finish: asked.choices[0].finish_reason,
    name: call.function.name,
    city: JSON.parse(call.function.arguments).city,
    answer: answer.choices[0].message.content,
  };
}

async function error(work, kind) {
  try {
    await work();
  } catch (failure) {
    return {
      expected: failure instanceof kind,
      status: failure.status,
      code: failure.code,
      type: failure.type,
      message: failure.message,
      request_id: failure.requestID,
    };
  }
  return { expected: false };
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const seen = {
  models,
  plain: await plain(),
  streamed: await streamed(),
  tools: await tools(),
  unauthorized: await error(
    () => client.withOptions({ apiKey: "wrong" }).chat.completions.create({ model: "policy", messages: hello }),
    AuthenticationError,
  ),
  refused: await error(
    () => client.chat.completions.create({ model: "policy", messages: hello, user: "refuse me" }),
    BadRequestError,
  ),
};
process.stdout.write(JSON.stringify(seen));
