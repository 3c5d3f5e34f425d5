"""`/v1/responses`: OpenAI's Responses API without its server's memory, told to and from chat completions.

Nothing is stored, so every request carries its whole conversation; tools that run on OpenAI's servers are refused.
"""

from leyden.gateway.core.faces.responses.face import RESPONSES, ResponsesFace

__all__ = ["RESPONSES", "ResponsesFace"]
