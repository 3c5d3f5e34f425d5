"""Faces: pure translations between each model API and chat completions. They do no IO and record nothing."""

from leyden.gateway.core.faces.messages import MESSAGES
from leyden.gateway.core.faces.openai import CHAT, COMPLETIONS, EMBEDDINGS, Face, StreamFace, kind_of, openai_error
from leyden.gateway.core.faces.responses import RESPONSES

FACES: tuple[Face, ...] = (CHAT, RESPONSES, MESSAGES, COMPLETIONS, EMBEDDINGS)
"""All faces with a route, the most used first: routes are tried in order."""

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "EMBEDDINGS",
    "FACES",
    "MESSAGES",
    "RESPONSES",
    "Face",
    "StreamFace",
    "kind_of",
    "openai_error",
]
