"""Faces: every model API as a pure translation around the one chat-completion path. No IO, no record of its own."""

from leyden.gateway.core.faces.messages import MESSAGES
from leyden.gateway.core.faces.openai import CHAT, COMPLETIONS, EMBEDDINGS, Face, StreamFace, kind_of, openai_error
from leyden.gateway.core.faces.responses import RESPONSES

FACES: tuple[Face, ...] = (CHAT, RESPONSES, MESSAGES, COMPLETIONS, EMBEDDINGS)
"""Every face that has a route, the busiest first: routes are tried in order."""

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
