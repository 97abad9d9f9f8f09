"""Workers as actors on Ray: on this machine, or on those of a cluster."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from tracker.errors import UserError
from tracker.many.outcome import FAULT, Outcome
from tracker.many.pools import TELL_SECONDS, Died, Ended, Event, Told
from tracker.many.video_worker import Job, Task, VideoWorker, thread_settings

_ROOT = Path(__file__).resolve().parents[2]

_STORE_BYTES = 100_000_000
"""Of shared memory for Ray's objects on this machine: only numbers and sentences go through it."""

_START_SECONDS = 120.0

_GONE = "the worker is gone (killed, out of memory, or its machine is)"


def ray_is_there() -> bool:
    """Whether Ray is installed."""
    from importlib.util import find_spec

    return find_spec("ray") is not None


class Board:
    """Where workers note how far they are."""

    def __init__(self) -> None:
        self._notes: dict[int, tuple[str, int, int | None]] = {}

    def note(self, worker: int, stage: str, done: int, total: int | None) -> None:
        """Replace a worker's note."""
        self._notes[worker] = (stage, done, total)

    def take(self) -> dict[int, tuple[str, int, int | None]]:
        """The notes since the last call."""
        notes, self._notes = self._notes, {}
        return notes


class TrackActor:
    """A worker: head and network stay loaded as long as it lives."""

    def __init__(self, job: Job, number: int, board: Any) -> None:
        self._worker, self._number, self._board = VideoWorker(job), number, board

    def track(self, task: Task) -> Outcome:
        """Track a video."""
        last = ["", 0.0]

        def tell(name: str, done: int, total: int | None) -> None:
            now = time.monotonic()
            if name != last[0] or now - last[1] > TELL_SECONDS:
                last[:] = [name, now]
                self._board.note.remote(self._number, name, done, total)

        return self._worker.track(task, tell)


class RayPool:
    """See :class:`tracker.many.pools.Pool`.

    Args:
        job: what the workers do. Its paths, and the videos', must mean the same on all machines.
        workers: how many; None for one per ``cores`` cores of the cluster.
        cores: of each worker.
        address: of a cluster; None for Ray on this machine, started for this run.

    Raises:
        UserError: Ray is not there, or does not answer.
    """

    name = "Ray"

    def __init__(self, job: Job, workers: int | None, cores: int, address: str | None = None) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would report to a server
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a worker without a GPU of its own: what it sees is left alone
        try:
            import ray
        except ImportError as error:
            raise UserError("Ray is not installed: pip install 'densemarks-tracker[cluster]', or --pool process, which works on this machine alone") from error
        self._ray, self._job, self._cores = ray, job, cores
        self._scratch: str | None = None
        self._actors: dict[int, Any] = {}
        try:
            if address:
                ray.init(address, log_to_driver=False, logging_level="error", runtime_env={"env_vars": thread_settings(job.threads)})
            else:
                self._start((workers or 1) * cores)
        except (ConnectionError, OSError, RuntimeError, ValueError, ImportError) as error:
            self.__exit__()
            why = " ".join(str(error).split())[:200]
            raise UserError(f"--address {address}: no Ray there ({why})" if address else f"Ray does not start ({why}); try --pool process") from error
        there = ray.cluster_resources()
        self.workers = workers or max(int(there.get("CPU", 1)) // cores, 1)
        self._gpus = 0.0 if job.options.device == "cpu" else min(there.get("GPU", 0) / self.workers, 1.0)
        self._board = ray.remote(num_cpus=0)(Board).remote()
        self._given: dict[int, Any] = {}

    def _start(self, cores: int) -> None:
        """Ray on this machine, for this run alone."""
        if not os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # it would put one into the user's home
        # it would end workers when others fill the machine; how many there are is chosen by the memory that is free
        os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
        self._scratch = tempfile.mkdtemp(prefix="ray-")  # it would leave its logs in /tmp/ray
        code = os.pathsep.join(dict.fromkeys((str(_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))))
        self._ray.init(
            "local", num_cpus=cores, include_dashboard=False, object_store_memory=_STORE_BYTES, _temp_dir=self._scratch,
            log_to_driver=False, logging_level="error", runtime_env={"env_vars": {**thread_settings(self._job.threads), "PYTHONPATH": code}},
        )  # fmt: skip

    def give(self, worker: int, task: Task) -> None:
        if worker not in self._actors:
            kind = self._ray.remote(num_cpus=self._cores, num_gpus=self._gpus, max_restarts=0)(TrackActor)
            self._actors[worker] = kind.remote(self._job, worker, self._board)
        self._given[worker] = self._actors[worker].track.remote(task)

    def replace(self, worker: int) -> None:
        self._ray.kill(self._actors.pop(worker))

    def wait(self, seconds: float) -> list[Event]:
        refs = {ref: worker for worker, ref in self._given.items()}
        if not refs:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(refs), num_returns=1, timeout=seconds)
        events: list[Event] = [Told(worker, *note) for worker, note in self._notes().items() if worker in self._given]
        for ref in ready:
            worker = refs[ref]
            del self._given[worker]
            events.append(self._ended(worker, ref))
        return events

    def _notes(self) -> dict[int, tuple[str, int, int | None]]:
        try:
            return self._ray.get(self._board.take.remote(), timeout=_START_SECONDS)
        except self._ray.exceptions.RayError:  # its machine is gone: the table says less from now on
            self._board = self._ray.remote(num_cpus=0)(Board).remote()
            return {}

    def _ended(self, worker: int, ref: Any) -> Event:
        errors = self._ray.exceptions
        try:
            return Ended(worker, self._ray.get(ref))
        except errors.RayTaskError as error:
            return Ended(worker, Outcome(FAULT, error=f"unexpected {' '.join(str(error.cause).split())}"))
        except errors.RayError as error:
            self._actors.pop(worker, None)
            why = " ".join(str(error).split())
            return Died(worker, f"the worker was ended for want of memory ({why[:300]})" if isinstance(error, errors.OutOfMemoryError) else _GONE)

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
