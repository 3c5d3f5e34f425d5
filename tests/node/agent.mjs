// The official client's own tool loop, as its documentation writes it. Nothing here knows of Leyden or of telemetry.

import OpenAI from "openai";

const CITIES = { Leiden: "127000", Delft: "106000" };

function parse(text) {
  const { city } = JSON.parse(text);
  if (!(city in CITIES)) throw new Error("no such city");
  return { city };
}

const client = new OpenAI();
const runner = client.chat.completions.runTools({
  model: "policy",
  messages: [
    { role: "system", content: "Use the tool." },
    { role: "user", content: process.env.QUESTION },
  ],
  tools: [
    {
      type: "function",
      function: {
        name: "population",
        description: "How many people live in a city.",
        parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
        parse,
        function: ({ city }) => CITIES[city],
      },
    },
  ],
});
console.log(await runner.finalContent());
