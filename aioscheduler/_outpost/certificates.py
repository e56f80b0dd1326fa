"""The engine's own certificates, for the connection between host and outposts.

The connection is encrypted exactly if Ray's are, with the same files: it is no weaker than the
calls beside it, and there is nothing more to set up.

    https://docs.ray.io/en/latest/ray-core/configure.html#tls-authentication
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

FILES = {
    "RAY_TLS_SERVER_CERT": "the certificate of this machine",
    "RAY_TLS_SERVER_KEY": "its key",
    "RAY_TLS_CA_CERT": "the certificate of the authority that has signed all machines'",
}


def uses_tls(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether Ray encrypts in this environment, by the variable that Ray reads."""
    return environment.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def context(server: bool, environment: Mapping[str, str] = os.environ) -> ssl.SSLContext | None:
    """Return the TLS context of a connection; None if Ray does not encrypt.

    Args:
        server: Whether it is for the side that listens.
        environment: The variables that name the files.

    Raises:
        ValueError: A file is not named, or cannot be used as certificate or key.
    """
    if not uses_tls(environment):
        return None
    for name, what in FILES.items():
        if not environment.get(name):
            raise ValueError(f"RAY_USE_TLS is set, and {name} is not: the file with {what}")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    # Both sides have a certificate of the cluster's authority. No host name is checked, as an
    # outpost's address need not be in its machine's certificate: the secret that the engine took
    # there proves that it is the right machine.
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    try:
        made.load_cert_chain(environment["RAY_TLS_SERVER_CERT"], environment["RAY_TLS_SERVER_KEY"])
        made.load_verify_locations(environment["RAY_TLS_CA_CERT"])
    except OSError as error:
        files = ", ".join(f"{name}={environment[name]}" for name in FILES)
        raise ValueError(f"Ray's certificates cannot be used ({files}): {error}") from error
    return made
