"""The environment variables that mark our processes: everything that is started has them in its environment."""

from __future__ import annotations

# Not imported from typing: the guardian imports this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEPLOYMENT: Final = "NIXPROC_DEPLOYMENT"
"""Holds the directory of the deployment."""

INSTANCE: Final = "NIXPROC_INSTANCE"
"""Holds the name of the instance in its model."""

SECRETS: Final = "NIXPROC_SECRETS"
"""Holds the names of the variables whose values are secret, separated by commas; only where there are any."""
