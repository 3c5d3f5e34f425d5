"""LangChain's ready-made agent under OpenInference, its OpenAI client under OpenLLMetry: one call, two spans."""

from _telemetry import QUESTION, population, tracing
from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.instrumentation.openai import OpenAIInstrumentor

provider = tracing()
LangChainInstrumentor().instrument(tracer_provider=provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)
agent = create_agent(ChatOpenAI(model="policy"), [tool(population)], system_prompt="Use the tool.", name="geographer")
question = QUESTION.replace("Atlantis", "Leiden")
print(agent.invoke({"messages": [{"role": "user", "content": question}]})["messages"][-1].content)
provider.shutdown()
