"""The one exception of this package that a person is meant to read."""

from __future__ import annotations


class ModelError(ValueError):
    """A network, checkpoint, picture or dataset that cannot be used; one line: what is wrong, where, what to do."""
