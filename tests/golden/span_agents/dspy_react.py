"""DSPy's ReAct with a tool that fails once, under OpenInference."""

import os

import dspy
from _telemetry import QUESTION, population, tracing
from openinference.instrumentation.dspy import DSPyInstrumentor

provider = tracing()
DSPyInstrumentor().instrument(tracer_provider=provider)
dspy.configure(lm=dspy.LM("openai/policy", api_base=os.environ["OPENAI_BASE_URL"], api_key="none", cache=False))
print(dspy.ReAct("question -> answer", tools=[population])(question=QUESTION).answer)
provider.shutdown()
