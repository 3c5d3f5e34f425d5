"""The gateway told as an OpenAPI 3.1 document. It says what is there; nothing is checked or routed by it.

Bodies of `/leyden/v1` come from the models that check them. The model APIs are OpenAI's and Anthropic's: of those it
says what the gateway itself reads and answers, and that all else passes through.
"""

from leyden.gateway.http.openapi.document import document
from leyden.gateway.http.openapi.route import DocumentApi

__all__ = ["DocumentApi", "document"]
