"""How texts and keys are stored in a column of the file.

SQLite cannot store integers beyond 64 bits or lone surrogates, so keys, ids and texts with these
are stored as bytes, which it keeps unchanged.
"""

from __future__ import annotations

from typing import Any


def bytes_out(content: Any) -> bytes:
    if type(content) is not bytes:
        raise TypeError("no bytes")
    return content


def text_in(text: str) -> str | bytes:
    """Return the value stored for a text."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogatepass")
    return text


def text_out(text: Any) -> str:
    """Return the text of a stored value.

    Raises:
        TypeError: It is none.
        ValueError: It is none.
    """
    if isinstance(text, bytes):
        return text.decode("utf-8", "surrogatepass")
    if not isinstance(text, str):
        raise TypeError("no text")
    return text


def text_or_error(content: bytes) -> str | UnicodeDecodeError:
    """Return the text of a column, for `Connection.text_factory`.

    For invalid UTF-8 return the error: raised here, it would fail the whole query.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        return error


def key_in(key: str | bytes | int) -> str | bytes | int:
    """Return the value stored for a key; the first letter of bytes says what they stand for."""
    if isinstance(key, str):
        text = text_in(key)
        return b"s" + text if isinstance(text, bytes) else text
    if isinstance(key, bytes):
        return b"b" + key
    if -(1 << 63) <= key < 1 << 63:
        return int(key)
    return b"i" + key.to_bytes(key.bit_length() // 8 + 1, "big", signed=True)


def key_out(key: Any) -> Any:
    """Return the key of a stored value; None stays None.

    Raises:
        TypeError: It is none.
        ValueError: It is none.
    """
    if key is None or type(key) in (str, int):
        return key
    mark, content = bytes_out(key)[:1], key[1:]
    if mark == b"s":
        return text_out(content)
    if mark == b"i":
        return int.from_bytes(content, "big", signed=True)
    if mark == b"b":
        return content
    raise ValueError("no key begins like this")
