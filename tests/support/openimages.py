"""The SSD of Open Images for tests; where it cannot be had they are skipped, and say why."""

from __future__ import annotations

from functools import cache

import pytest

from ssdlib.model import SSD
from ssdlib.zoo.openimages import openimages_model


@cache
def _model_or_reason() -> SSD | str:
    try:
        return openimages_model(progress=False)
    except OSError as error:
        return f"the weights of Open Images cannot be had: {error}"


def openimages() -> SSD:
    """The model, the same for all tests: they must not change it."""
    found = _model_or_reason()
    if isinstance(found, str):
        pytest.skip(found)
    return found
