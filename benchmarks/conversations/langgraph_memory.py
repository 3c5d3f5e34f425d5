"""A conversation with LangGraph's agent, which keeps the messages itself. Nothing here knows of Leyden."""

import json
import os

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

agent = create_agent(ChatOpenAI(model="policy", max_tokens=48), [], checkpointer=InMemorySaver())
for said in json.loads(os.environ["TURNS"]):
    agent.invoke({"messages": [{"role": "user", "content": said}]}, {"configurable": {"thread_id": "one"}})
