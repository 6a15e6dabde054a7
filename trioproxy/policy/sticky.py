"""Names of backends in cookies: nobody without the secret can tell which one is meant, or make up another."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import blake2b

from trioproxy.routing.route import Backend, RouteKey

_PERSON = b"trioproxy sticky"
"""What the secret is used for (blake2b's personalisation, 16 bytes)."""


def pin_for(secret: bytes, route: RouteKey, backend: Backend) -> str:
    """What stands in the cookie for this backend of this route: 22 characters.

    A keyed hash of route, id and address, so the same in every process and worker that has the secret, and another
    one in another route. A backend that gets another address is another backend.
    """
    key = blake2b(secret, digest_size=32, person=_PERSON).digest()
    text = "\0".join((*route, backend.id, backend.key)).encode()
    return urlsafe_b64encode(blake2b(text, key=key, digest_size=16).digest()).rstrip(b"=").decode("ascii")
