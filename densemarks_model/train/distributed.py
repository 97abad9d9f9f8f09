"""One process or many: what ``torchrun`` says about the processes of this run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Processes:
    """Where this process stands: ``rank`` of ``world``, and the device that it uses."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the group that ``torchrun`` started, and leave it at the end; alone when it did not.

    GPUs talk through NCCL, CPUs through Gloo.
    """
    cuda = torch.cuda.is_available()
    if "RANK" not in os.environ:
        yield Processes(0, 1, torch.device("cuda" if cuda else "cpu"))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)
    finally:
        torch.distributed.destroy_process_group()
