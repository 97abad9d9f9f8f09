"""The device of a run is chosen before it begins, and there is one renderer for each."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch

from tracker.errors import UserError
from tracker.rendering import Renderer, backends, devices, get_renderer, resolve_device
from tracker.rendering.topology import TopologyCache, build_topology

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """A machine with one GPU and nvdiffrast, as far as the module can tell; attributes take parts of it away."""
    parts = SimpleNamespace(gpus=1, computes=True, installed=True, draws=True)

    def ones(*size, device):
        if not parts.computes:
            raise RuntimeError("no kernel image is available for execution on the device\nsecond line")
        return torch.zeros(size)

    def renderer(name, device):
        if not parts.draws:
            raise OSError("nvcc not found")
        return SimpleNamespace(rasterize=lambda pos, tri, size: torch.ones(1, *size, 4))

    fake = SimpleNamespace(
        is_available=lambda: parts.gpus > 0, device_count=lambda: parts.gpus, get_device_name=lambda device: "a GPU"
    )
    like_torch = SimpleNamespace(
        device=torch.device, cuda=fake, ones=ones, tensor=lambda data, dtype=None, device=None: torch.tensor(data), int32=torch.int32
    )
    monkeypatch.setattr(devices, "torch", like_torch)
    monkeypatch.setattr(devices, "get_renderer", renderer)
    monkeypatch.setattr(devices, "find_spec", lambda name: parts.installed or None)
    return parts


def test_auto_is_the_gpu_where_it_can_compute_and_draw(machine):
    found = resolve_device("auto")
    assert (found.compute, found.draw, found.renderer) == (torch.device("cuda:0"), torch.device("cuda:0"), "cuda")
    assert found.reason == "cuda:0: a GPU"


@pytest.mark.parametrize(
    "part, value, reason",
    [
        ("gpus", 0, "cpu: PyTorch sees no CUDA device"),
        ("computes", False, "cpu: PyTorch cannot compute on cuda:0 (no kernel image is available for execution on the device)"),
        ("installed", False, "cpu: nvdiffrast is not installed"),
        ("draws", False, "cpu: nvdiffrast does not work on cuda:0 (nvcc not found)"),
    ],
)
def test_auto_is_the_cpu_where_anything_is_missing_and_says_what(machine, part, value, reason):
    setattr(machine, part, value)
    found = resolve_device("auto")
    assert (found.compute, found.draw, found.renderer, found.reason) == (CPU, CPU, "cpu", reason)


@pytest.mark.parametrize(
    "part, value, message",
    [
        ("gpus", 0, "--device cuda: PyTorch sees no CUDA device; install a CUDA build of torch"),
        ("computes", False, "--device cuda: PyTorch cannot compute on cuda:0 .*use --device cpu"),
        ("installed", False, "--device cuda: nvdiffrast is not installed; .*pip install git.*use --device cpu"),
        ("draws", False, "--device cuda: nvdiffrast does not work on cuda:0 .nvcc not found.; "),
    ],
)
def test_cuda_that_cannot_be_had_is_an_error_before_anything_runs(machine, part, value, message):
    setattr(machine, part, value)
    with pytest.raises(UserError, match=message) as caught:
        resolve_device("cuda")
    assert "\n" not in str(caught.value)


def test_cuda_without_a_renderer_computes_there_and_draws_on_the_cpu(machine):
    machine.installed = False
    found = resolve_device("cuda", needs_renderer=False)
    assert (found.compute, found.draw, found.renderer) == (torch.device("cuda:0"), CPU, "cpu")
    assert found.reason == "cuda:0: a GPU, drawing on the cpu: nvdiffrast is not installed"


def test_devices_that_are_not_there(machine):
    with pytest.raises(UserError, match="--device cuda:3: PyTorch sees 1 CUDA device, numbered from 0; choose another"):
        resolve_device("cuda:3")
    for name in ("vulkan", "mps", "cuda:x", ""):
        with pytest.raises(UserError, match="choose auto, cpu, cuda or cuda:NUMBER"):
            resolve_device(name)


def test_asking_for_the_cpu_needs_no_reason():
    assert resolve_device("cpu").reason == "cpu"


class Made(Renderer):
    """A renderer that counts how often one is made."""

    count = 0

    def __init__(self, name: str, device: torch.device) -> None:
        super().__init__()
        Made.count += 1
        self.name, self.device = name, device

    def _rasterize(self, pos, tri, height, width):
        raise NotImplementedError

    _interpolate = _rasterize


def test_one_renderer_per_backend_and_device(monkeypatch):
    monkeypatch.setattr(backends, "_made", {})
    monkeypatch.setattr(backends, "_make", Made)
    monkeypatch.setattr(Made, "count", 0)
    start, found = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        found.append(get_renderer("auto", "cuda:1"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(map(id, found))) == 1 and Made.count == 1
    assert found[0].name == "cuda" and found[0].device == torch.device("cuda:1")
    assert get_renderer("cuda", "cuda:0") is not found[0]
    assert get_renderer("cpu") is get_renderer("auto", "cpu:0") is get_renderer("cpu", "cpu")


def test_a_backend_that_cannot_be_made_is_tried_again(monkeypatch):
    def refuse(name, device):
        raise UserError("not now")

    monkeypatch.setattr(backends, "_made", {})
    with monkeypatch.context() as patch:
        patch.setattr(backends, "_make", refuse)
        with pytest.raises(UserError, match="not now"):
            get_renderer("cpu")
    assert get_renderer("cpu").name == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_renderer_for_a_gpu_is_never_the_cpus():
    """It would refuse the first tensor, after all the work of the first pass."""
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        get_renderer("auto", "cuda")


def test_topologies_are_shared_by_threads():
    cache, errors = TopologyCache(size=1), []
    meshes = [torch.tensor([[0, 1, 2], [1, 2, n]], dtype=torch.int32) for n in range(3, 9)]

    def work(mesh: torch.Tensor) -> None:
        try:
            expected = build_topology(mesh).opposite
            for _ in range(200):
                assert torch.equal(cache.of(mesh).opposite, expected)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(mesh,)) for mesh in meshes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
