"""DenseMarks: every pixel of a head gets a location in a canonical unit cube.

After Pozdeev et al., *DenseMarks: Learning Canonical Embeddings for Human Heads Images via Point Tracks* (ICLR 2026,
arXiv 2511.02830). :func:`load_network` is the door to trained networks; ``python -m densemarks_model.train`` trains them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from densemarks_model.errors import ModelError
from densemarks_model.prediction import Prediction

if TYPE_CHECKING:
    from densemarks_model.loading import load_network

__all__ = ["ModelError", "Prediction", "load_network"]


def __getattr__(name: str):
    # transformers takes seconds to import, and most of this package does not need it
    if name == "load_network":
        from densemarks_model.loading import load_network

        return load_network
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
