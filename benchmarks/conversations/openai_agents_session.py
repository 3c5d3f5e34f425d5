"""A conversation with the OpenAI Agents SDK, whose session keeps the messages. Nothing here knows of Leyden."""

import json
import os

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, SQLiteSession, set_tracing_disabled
from openai import AsyncOpenAI

set_tracing_disabled(disabled=True)
model = OpenAIChatCompletionsModel("policy", AsyncOpenAI())
agent = Agent(name="talker", instructions="Be brief.", model=model, model_settings=ModelSettings(max_tokens=48))
session = SQLiteSession("one")
for said in json.loads(os.environ["TURNS"]):
    Runner.run_sync(agent, said, session=session)
