"""What a policy server's HTTP face has beyond OpenAI's: names that the gateway sends and the engines answer with."""

VERSION_HEADER = "x-leyden-policy-version"
"""On an answer: `<policy>@<version>` of the weights that gave it, to its last byte."""
CONTINUE_FIELD = "leyden_continue"
"""In a chat request: `{"token_ids": […], "rendered": "<count>:<digest>", "truncated": false}`, or `{}`.

The tokens that an earlier call had, prompt and answer, what its prompt was rendered to, and whether its answer was cut
off by a limit: the engine uses them in place of that part of the rendering, where history is the same.
"""
CONTINUE_HEADER = "x-leyden-continue"
"""On a request: the body has the field."""
PROMPT_HEADER = "x-leyden-prompt"
"""On an answer to such a request: `continued` or `rendered`."""
RENDERED_HEADER = "x-leyden-rendered"
"""On an answer to such a request: what the messages were rendered to, for the call that extends this one."""
