"""What the tests of the built site share."""

from __future__ import annotations

from support.site import chapters, site  # noqa: F401
