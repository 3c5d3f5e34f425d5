"""Instructor asks again when the answer does not pass its model's check, under OpenInference."""

import instructor
from _telemetry import QUESTION, tracing
from openai import OpenAI
from openinference.instrumentation.instructor import InstructorInstrumentor
from openinference.instrumentation.openai import OpenAIInstrumentor
from pydantic import BaseModel, field_validator

provider = tracing()
InstructorInstrumentor().instrument(tracer_provider=provider)
OpenAIInstrumentor().instrument(tracer_provider=provider)


class population(BaseModel):  # noqa: N801  # the model's name is the tool's
    """How many people live in a city."""

    city: str

    @field_validator("city")
    @classmethod
    def exists(cls, city: str) -> str:
        """Atlantis does not."""
        if city == "Atlantis":
            raise ValueError("no such city")
        return city


client = instructor.from_openai(OpenAI())
messages = [{"role": "system", "content": "Use the tool."}, {"role": "user", "content": QUESTION}]
print(client.create(model="policy", response_model=population, messages=messages, max_retries=2))  # type: ignore[arg-type]
provider.shutdown()
