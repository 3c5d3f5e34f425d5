"""LangChain's ready-made agent with a tool, under OpenLLMetry."""

from _telemetry import QUESTION, population, tracing
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from opentelemetry.instrumentation.langchain import LangchainInstrumentor

provider = tracing()
LangchainInstrumentor().instrument(tracer_provider=provider)
agent = create_agent(ChatOpenAI(model="policy"), [tool(population)], system_prompt="Use the tool.", name="geographer")
try:
    agent.invoke({"messages": [{"role": "user", "content": QUESTION}]})
except ValueError as error:
    print(error)
print(
    agent.invoke({"messages": [{"role": "user", "content": QUESTION.replace("Atlantis", "Leiden")}]})["messages"][
        -1
    ].content
)
provider.shutdown()
