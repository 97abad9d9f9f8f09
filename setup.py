"""Installation with version ranges; ``requirements.txt`` holds the exact versions that the tests run with."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tracker" / "__init__.py").read_text(encoding="utf-8")).group(1)


def packages() -> list[str]:
    """Every folder with an ``__init__.py`` below the importable top-level packages."""
    found = []
    for top in ("tracker", "densemarks_model", "flame_assets", "configs"):
        found += [".".join(p.parent.relative_to(ROOT).parts) for p in sorted((ROOT / top).rglob("__init__.py"))]
    return found


setup(
    name="densemarks-tracker",
    version=VERSION,
    description="Monocular head tracking: video in, FLAME-layout parameters and animated meshes out",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=packages(),
    package_data={
        "densemarks_model": ["weights/*", "configs/*.yaml"],
        "densemarks_model.data.synthetic": ["*.npz"],
        "tracker.evaluation": ["*.json", "data/cycles_suite/*"],
        "tracker.report": ["files/*"],
        "flame_assets": ["*.npz", "*.task", "*.md"],
        "configs": ["*.yaml"],
    },
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26,<3",
        "scipy>=1.11",
        "numba>=0.61",
        "av>=14",
        "mediapipe>=1.2",
        "opencv-contrib-python>=4.10",
        "trimesh>=4",
        "kornia>=0.8",
        "jaxtyping>=0.2.36",
        "PyYAML>=6",
        "pydantic>=2.10,<3",
        "pillow>=10",
        "tqdm>=4.60",
        "psutil>=5.9",
        "platformdirs>=4",
        "transformers>=5.20,<6",
        "safetensors>=0.5",
        "huggingface_hub>=1.0",
        "openvino>=2025.0",
    ],
    extras_require={
        "test": ["pytest>=8", "smplx>=0.1.28", "pygltflib>=1.16", "onnx>=1.17", "tensorboard>=2.17", "import-linter>=2.10", "python-osc>=1.9", "hypothesis>=6.100"],
        # reads the backbone's weights, writes logs; CoTracker3 is the user's own installation
        "train": ["onnx>=1.17", "tensorboard>=2.17", "matplotlib>=3.8"],
        "export": ["onnx>=1.17"],
        # reads the panoramas that light synthetic heads, once; OpenCV's wheels are built without OpenEXR
        "panoramas": ["OpenEXR>=3.3"],
        # plays tracks into avatars' programs (tools/send_vmc.py); public domain, pure Python
        "vmc": ["python-osc>=1.9"],
        # looks at tracks in a browser (tools/view.py); Apache-2.0 by its licence file (MIT by its metadata), pure Python, brings websockets, msgspec and imageio
        "viewer": ["viser>=1.1,<2"],
        # an independent landmark detector that scores trackers on real clips, and plots
        "benchmark": ["dlib-bin>=19.24", "face_recognition_models>=0.3", "matplotlib>=3.8"],
        # what tracks are written with for animation programs: USD (Tomorrow Open Source Technology Licence, as Apache but for
        # trademarks; 29 MB) and Alembic (BSD, 13 MB); both need nothing else. --export names the one that is missing
        "dcc": ["usd-core>=26.8", "alembic3d>=1.8.12"],
        # Blender as a module (GPL), for pictures of its path tracer: docs/cycles.md; needs CPython 3.11
        "cycles": ["bpy>=4.5,<4.6"],
        # many videos on the machines of a cluster (tools/track_many.py; without it processes of one machine do the same)
        "cluster": ["ray[client]>=2.50,<3"],
        # nvdiffrast is not on the registry and has its own (non-commercial) licence; docs/rendering.md has its command
        "cuda": ["ninja>=1.11"],
    },
    entry_points={"console_scripts": ["head-track = tracker.cli:main"]},
)
