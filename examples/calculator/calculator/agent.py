"""An ordinary agent: the OpenAI client, a loop, a tool. It is given a base URL and a key, and knows no more."""

from functools import cache

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from calculator.tool import calculate, final_answer, tool_call

MAX_TURNS = 3
MAX_TOKENS = 16
"""A turn is one line; the model ends it itself."""

RULE = "Write only: CALC(a+b) or CALC(a-b) or CALC(a*b). After RESULT write only: ANSWER."
PROMPT: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": RULE},
    {"role": "user", "content": "Ann has 12 pens and buys 31 more. How many pens does Ann have?"},
    {"role": "assistant", "content": "CALC(12+31)"},
    {"role": "user", "content": "RESULT: 43"},
    {"role": "assistant", "content": "ANSWER: 43"},
]
"""What every conversation begins with: the rule, and one example worked through."""


def solve(question: str, base_url: str, api_key: str, model: str, max_retries: int = 8) -> str:
    """The model's last line: `ANSWER: <n>` when it went well. Raises what the OpenAI client raises."""
    messages: list[ChatCompletionMessageParam] = [*PROMPT, {"role": "user", "content": question}]
    text = ""
    client = _client().with_options(base_url=base_url, api_key=api_key, max_retries=max_retries)
    for _ in range(MAX_TURNS):
        reply = client.chat.completions.create(model=model, messages=messages, max_tokens=MAX_TOKENS, temperature=1.0)
        text = reply.choices[0].message.content or ""
        observation = observe(text)
        if observation is None:
            break
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": observation}]
    return text


@cache
def _client() -> OpenAI:
    """One pool of connections for all conversations: a client of its own for each costs more than the agent does."""
    return OpenAI(api_key="given with each conversation")


def observe(text: str) -> str | None:
    """What the tool says to the model's line; None when the line is not a tool call and so the end."""
    expression = tool_call(text)
    if expression is None or final_answer(text) is not None:
        return None
    try:
        return f"RESULT: {calculate(expression)}"
    except ValueError:
        return None
