from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from aioscheduler._outpost.certificates import context, uses_tls


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate that is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl, which makes the certificate")
    folder = tmp_path_factory.mktemp("certificates")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=node", "-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "cert.pem"),
        "RAY_TLS_SERVER_KEY": str(folder / "key.pem"),
        "RAY_TLS_CA_CERT": str(folder / "cert.pem"),
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("true", True), ("TRUE", True), ("0", False), ("", False), ("yes", False)],
)
def test_it_is_read_as_ray_reads_it(value: str, expected: bool) -> None:
    assert uses_tls({"RAY_USE_TLS": value}) is expected
    assert not uses_tls({})


def test_without_tls_there_is_none() -> None:
    assert context(True, {}) is None


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Shake hands in memory, without a connection."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waits = [True, True]
    while any(waits):
        for n, side in enumerate(sides):
            try:
                side.do_handshake()
                waits[n] = False
            except ssl.SSLWantReadError:
                pass
    sides[0].write(b"to the node")
    assert sides[1].read() == b"to the node"  # in TLS 1.3 the server checks the client only now


def test_both_sides_prove_themselves(files: dict[str, str]) -> None:
    client, server = context(False, files), context(True, files)
    assert client is not None
    assert server is not None
    assert client.verify_mode == server.verify_mode == ssl.CERT_REQUIRED
    shake_hands(client, server)


def test_who_has_no_certificate_is_refused(files: dict[str, str]) -> None:
    server = context(True, files)
    assert server is not None
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.load_verify_locations(files["RAY_TLS_CA_CERT"])
    stranger.check_hostname = False
    with pytest.raises(ssl.SSLError):
        shake_hands(stranger, server)


@pytest.mark.parametrize("name", ["RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"])
def test_a_missing_file_name_is_an_error(name: str, files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"RAY_USE_TLS is set, and {name} is not"):
        context(True, {**files, name: ""})


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_file_that_cannot_be_used_is_named(
    text: str | None, files: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "other.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"cannot be used \(.*RAY_TLS_CA_CERT=.*other\.pem"):
        context(True, {**files, "RAY_TLS_CA_CERT": str(path)})
