"""AgentScope's agent with a tool that fails once, streamed (its default), under its own tracing middleware."""

import asyncio
import os

from _telemetry import QUESTION, population, tracing
from agentscope.agent import Agent
from agentscope.credential import OpenAICredential
from agentscope.message import UserMsg
from agentscope.middleware import TracingMiddleware
from agentscope.model import OpenAIChatModel
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.tool import FunctionTool, Toolkit

provider = tracing()
allowed = PermissionDecision(behavior=PermissionBehavior.ALLOW, message="reads only")
agent = Agent(
    name="geographer",
    system_prompt="Use the tool.",
    model=OpenAIChatModel(
        credential=OpenAICredential(
            api_key=os.environ["OPENAI_API_KEY"],  # type: ignore[arg-type]  # pydantic makes the secret
            base_url=os.environ["OPENAI_BASE_URL"],
        ),
        model="policy",
    ),
    toolkit=Toolkit(tools=[FunctionTool(population, permission=allowed)]),
    middlewares=[TracingMiddleware()],
)
reply = asyncio.run(agent.reply(UserMsg(name="user", content=QUESTION)))
print(reply.get_text_content())
provider.shutdown()
