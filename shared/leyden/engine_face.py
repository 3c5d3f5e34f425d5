"""What the engines' HTTP API adds to OpenAI's. The gateway and the engines both use it.

Logprobs in responses are those of the distribution that was sampled from: after temperature, and after truncation and
penalties if there are any. A greedy response (temperature 0) has the logprobs of temperature 1.
"""

LEAST_TEMPERATURE = 0.01
"""Engines sample any temperature between 0 and this one at this one, as vLLM does. 0 is greedy."""

VERSION_HEADER = "x-leyden-policy-version"
"""Response header: `<policy>@<version>` of the weights that produced the whole response."""
CONTINUE_FIELD = "leyden_continue"
"""Field of a chat request: `{"token_ids": […], "rendered": "<count>:<digest>", "truncated": false}`, or `{}`.

It describes an earlier call: the token ids of its prompt and response, a digest of its rendered prompt, and whether a
length limit cut its response off. If the new messages begin with the same history, the engine uses these token ids
instead of rendering that part again.
"""
CONTINUE_HEADER = "x-leyden-continue"
"""Request header: the body contains `CONTINUE_FIELD`."""
PROMPT_HEADER = "x-leyden-prompt"
"""Response header: `continued` if the earlier token ids were used, else `rendered`."""
RENDERED_HEADER = "x-leyden-rendered"
"""Response header: the digest of this call's rendered prompt, to send with a call that continues this one."""
