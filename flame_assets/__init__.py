"""Head models on disk: the default head's data, and importers for heads that users bring.

Everything here turns files into a :class:`~flame_assets.asset.HeadAsset`, a plain bundle of numpy arrays in
FLAME's layout. Nothing here needs torch; the differentiable model is :mod:`tracker.head_model`.
"""

from flame_assets.asset import HeadAsset, LandmarkEmbedding

__all__ = ["HeadAsset", "LandmarkEmbedding"]
