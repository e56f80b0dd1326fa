"""The engine's own certificates, for the connection between host and outposts.

Exactly if Ray encrypts what it sends, so is this connection, with the same files: it is no weaker
than the calls beside which it stands, and there is nothing more to set up.

    https://docs.ray.io/en/latest/ray-core/configure.html#tls-authentication
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

FILES = {
    "RAY_TLS_SERVER_CERT": "the certificate of this machine",
    "RAY_TLS_SERVER_KEY": "its key",
    "RAY_TLS_CA_CERT": "the certificate of who has signed those of all machines",
}


def uses_tls(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this environment has Ray encrypt, read as Ray reads it."""
    return environment.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def context(server: bool, environment: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """Return what a connection is encrypted with; None if Ray encrypts nothing.

    Args:
        server: Whether for the side that listens.
        environment: Where the names of the files are.

    Raises:
        ValueError: A file is not named, or cannot be read as what it ought to be.
    """
    if not uses_tls(environment):
        return None
    for name, what in FILES.items():
        if not environment.get(name):
            raise ValueError(f"RAY_USE_TLS is set, and {name} is not: the file with {what}")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    # Both sides prove themselves to the authority of the cluster. Which of its machines it is need
    # not be known: that it is the one that was meant is proven by the secret that the engine has
    # carried there, and an outpost's address need not stand in the certificate of its machine.
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    try:
        made.load_cert_chain(environment["RAY_TLS_SERVER_CERT"], environment["RAY_TLS_SERVER_KEY"])
        made.load_verify_locations(environment["RAY_TLS_CA_CERT"])
    except OSError as error:
        files = ", ".join(f"{name}={environment[name]}" for name in FILES)
        raise ValueError(f"Ray's certificates cannot be used ({files}): {error}") from error
    return made
