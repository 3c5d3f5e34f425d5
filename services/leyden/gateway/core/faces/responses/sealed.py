"""`encrypted_content` of a reasoning item: here the text itself, in base64, since there is nobody to hide it from.

Clients that keep nothing else of a streamed reasoning item give this back, and with it the tokens that were sampled.
"""

import base64
import binascii

MARK = "leyden-reasoning-"


def seal(text: str) -> str:
    """The text as `encrypted_content`."""
    return MARK + base64.b64encode(text.encode()).decode()


def unseal(sealed: object) -> str | None:
    """The text of what `seal` made; None for what another server made."""
    if not isinstance(sealed, str) or not sealed.startswith(MARK):
        return None
    try:
        return base64.b64decode(sealed.removeprefix(MARK), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
