"""The guardian, which starts every process for us, and our end of it; the process itself runs in a bare interpreter."""

from __future__ import annotations

# Not imported from typing: the guardian imports this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LEFT_TO_OTHERS: Final = 5
"""Exit status of the command that recovers a deployment, when others still use it."""
