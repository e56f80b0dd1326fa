"""The README as a package index shows it, where there are no files beside the page.

Links to files of the repository become links to `Source` of the project's URLs. As long as the
project has no such URL they become plain text, and pictures are left out: no link leads nowhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LOCAL = r"(?!https?://|#)([^)\s]+)"  # the target of a link, if it is a file of the repository
IMAGE = re.compile(rf"!\[([^\]]*)\]\({LOCAL}\)\n*")
LINK = re.compile(rf"(?<!!)\[([^\]]+)\]\({LOCAL}\)")
FOOTNOTE = re.compile(r" \(\[\d+\]\)")  # of the table of guarantees
DEFINITION = re.compile(rf"^(\[\d+\]): {LOCAL}(.*)\n", re.MULTILINE)


class IndexReadme(MetadataHookInterface):  # type: ignore[misc]  # hatchling is only there to build
    """What hatchling calls for the metadata of a wheel or sdist."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_index(text, source)}


def for_index(text: str, source: str | None) -> str:
    """Return a page of Markdown without links that need files beside it.

    Args:
        text: The page as it is in the repository.
        source: Where the repository is on the web, by GitHub's paths; None if it is nowhere.
    """
    if source is None:
        for pattern, plain in ((IMAGE, ""), (LINK, r"\1"), (FOOTNOTE, ""), (DEFINITION, "")):
            text = pattern.sub(plain, text)
        return text
    text = IMAGE.sub(rf"![\1]({source}/raw/HEAD/\2)\n\n", text)
    text = LINK.sub(rf"[\1]({source}/blob/HEAD/\2)", text)
    return DEFINITION.sub(rf"\1: {source}/blob/HEAD/\2\3\n", text)
