"""LangChain's ready-made agent with a tool and a retriever, under OpenInference."""

from _telemetry import QUESTION, population, tracing
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openinference.instrumentation.langchain import LangChainInstrumentor

provider = tracing()
LangChainInstrumentor().instrument(tracer_provider=provider)


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):  # type: ignore[no-untyped-def]
        return [Document(page_content="Atlantis sank.", metadata={"source": "myths"}, id="d1")]


Shelf().invoke("Atlantis")
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
