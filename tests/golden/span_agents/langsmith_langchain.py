"""LangChain's ready-made agent under LangSmith's tracing, exported as OpenTelemetry."""

import os

os.environ |= {"LANGSMITH_OTEL_ENABLED": "true", "LANGSMITH_TRACING": "true", "LANGSMITH_OTEL_ONLY": "true"}
os.environ |= {"LANGSMITH_ENDPOINT": os.environ["AT"], "LANGSMITH_API_KEY": "none", "LANGSMITH_PROJECT": "agent"}

from _telemetry import QUESTION, population, tracing

provider = tracing()

from langchain.agents import create_agent  # noqa: E402
from langchain_core.documents import Document  # noqa: E402
from langchain_core.retrievers import BaseRetriever  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_core.tracers.langchain import wait_for_all_tracers  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query, *, run_manager):  # type: ignore[no-untyped-def]
        return [Document(page_content="Atlantis sank.", metadata={"source": "myths"}, id="d1")]


Shelf().invoke("Atlantis", config={"metadata": {"session_id": "s1"}})
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
wait_for_all_tracers()
provider.shutdown()
