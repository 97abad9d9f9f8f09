"""How the renderer compiles its kernels: once per machine where a cache can be written, once per process elsewhere.

numba keeps compiled code beside the source, or, where the source lies in a read-only site-packages, in the user's cache
folder, for which this program's own is taken. Where neither can be written (a locked-down container) its decorator raises
at import; here the kernel is then compiled without a cache, which costs a few seconds at its first call. ``NUMBA_CACHE_DIR`` names a folder of one's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from flame_assets.user_cache import cache_folder

if not numba.config.CACHE_DIR and not os.access(Path(__file__).parent, os.W_OK):
    numba.config.CACHE_DIR = str(cache_folder("compiled"))


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel that is serial and releases the GIL, so that frames can run in threads.

    numba's parallel loops are not used: their worker threads spin, and a busy neighbour on the same cores makes them
    many times slower than one thread.
    """
    return _compile(function)


def fast_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, for sums that may be taken in any order."""
    return _compile(function, fastmath={"reassoc", "contract"})


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a helper that only kernels of the same file call; it becomes part of their machine code.

    The same file, since numba decides from the caller's file alone whether its cached code is still good.
    """
    return numba.njit(boundscheck=False, error_model="numpy")(function)


def _compile(function: Callable[..., Any], **extra: Any) -> Callable[..., Any]:
    options: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy", **extra}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
