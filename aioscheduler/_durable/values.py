"""Texts and keys, as one column of the file has them.

SQLite keeps bytes as they are. It does not keep numbers beyond 64 bits and lone surrogates, so
keys, ids and texts of that kind are stored as bytes.
"""

from __future__ import annotations

from typing import Any


def bytes_out(content: Any) -> bytes:
    if type(content) is not bytes:
        raise TypeError("no bytes")
    return content


def text_in(text: str) -> str | bytes:
    """Give a text as SQLite keeps it."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogatepass")
    return text


def text_out(text: Any) -> str:
    """Give back a text.

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
    """Give what a column of text has, for `Connection.text_factory`.

    What is no UTF-8 is an error as a value: raised here, it would take along the whole answer.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        return error


def key_in(key: str | bytes | int) -> str | bytes | int:
    """Give a key as SQLite keeps it: bytes begin with a letter that says what they stand for."""
    if isinstance(key, str):
        text = text_in(key)
        return b"s" + text if isinstance(text, bytes) else text
    if isinstance(key, bytes):
        return b"b" + key
    if -(1 << 63) <= key < 1 << 63:
        return int(key)
    return b"i" + key.to_bytes(key.bit_length() // 8 + 1, "big", signed=True)


def key_out(key: Any) -> Any:
    """Give back a key, or None.

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
