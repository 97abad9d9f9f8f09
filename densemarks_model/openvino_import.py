"""``import openvino`` without its telemetry, which on import makes ``~/intel/`` with a client's id and reports the use to a server."""

from __future__ import annotations

import sys
from types import ModuleType


def import_openvino() -> ModuleType:
    """OpenVINO, imported here and nowhere else, so that nothing is reported or left in the home folder.

    OpenVINO has a stub for installations without the package ``openvino_telemetry``. It takes it, too, where that package
    is marked as missing before the first import; afterwards it would be too late.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
