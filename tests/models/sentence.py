"""What a refusal must look like."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from models.base import BadModel


@contextmanager
def one_sentence(part: str = "") -> Iterator[None]:
    """What is within must raise BadModel with a sentence that has ``part`` in it."""
    with pytest.raises(BadModel) as caught:
        yield
    text = str(caught.value)
    assert part in text
    assert text.isprintable()
    assert len(text) < 800
