"""A conversation with Pydantic AI, whose history goes from run to run. Nothing here knows of Leyden."""

import json
import os

from pydantic_ai import Agent, ModelMessage
from pydantic_ai.models.openai import OpenAIChatModel

agent = Agent(OpenAIChatModel("policy"), model_settings={"max_tokens": 48})
history: list[ModelMessage] = []
for said in json.loads(os.environ["TURNS"]):
    history = agent.run_sync(said, message_history=history).all_messages()
