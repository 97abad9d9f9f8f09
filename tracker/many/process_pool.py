"""Workers as processes of this machine.

The standard library's pools are of no use here: one breaks as a whole when a worker is killed, the other waits for it for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection, wait

from tracker.many.outcome import Outcome
from tracker.many.pools import TELL_SECONDS, Died, Ended, Event, Told
from tracker.many.video_worker import Job, Task, VideoWorker, thread_settings
from tracker.progress import Progress

_GRACE = 10.0
"""Seconds that a worker has to end well when it is asked to."""


class ProcessPool:
    """See :class:`tracker.many.pools.Pool`.

    Args:
        job: what the workers do.
        workers: how many.
        gpus: of this machine, over which workers are spread.
    """

    name = "processes"

    def __init__(self, job: Job, workers: int, gpus: int = 0) -> None:
        self.workers = workers
        self._job, self._gpus = job, gpus
        self._spawn = multiprocessing.get_context("spawn")  # threads of libraries do not outlive a fork
        self._places: dict[int, tuple[multiprocessing.process.BaseProcess, Connection]] = {}

    def give(self, worker: int, task: Task) -> None:
        if worker not in self._places:
            self._places[worker] = self._start(worker)
        try:
            self._places[worker][1].send(task)
        except OSError:
            pass  # it died just now, which wait() will find

    def _start(self, worker: int):
        ours, theirs = self._spawn.Pipe()
        own = thread_settings(self._job.threads)
        if self._gpus > 1:
            own["CUDA_VISIBLE_DEVICES"] = _visible_gpu(worker % self._gpus)
        process = self._spawn.Process(target=_work, args=(self._job, theirs), name=f"track-{worker}", daemon=True)
        before = {key: os.environ.get(key) for key in own}
        os.environ.update(own)  # a child has it before it imports anything
        try:
            process.start()
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
        theirs.close()  # so that ours ends with the process
        return process, ours

    def replace(self, worker: int) -> None:
        process, connection = self._places.pop(worker)
        connection.close()
        _end([process])

    def wait(self, seconds: float) -> list[Event]:
        connections = {connection: worker for worker, (_, connection) in self._places.items()}
        if not connections:
            time.sleep(seconds)
            return []
        events: list[Event] = []
        for connection in wait(list(connections), seconds):
            events += self._read(connections[connection], connection)  # type: ignore[index, arg-type]
        return events

    def _read(self, worker: int, connection: Connection) -> list[Event]:
        events: list[Event] = []
        try:
            while connection.poll():
                said = connection.recv()
                events.append(Ended(worker, said) if isinstance(said, Outcome) else Told(worker, *said))
        except (EOFError, OSError):
            process, _ = self._places.pop(worker)
            connection.close()
            process.join(_GRACE)
            events.append(Died(worker, _why(process.exitcode)))
        return events

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *error: object) -> None:
        places, self._places = list(self._places.values()), {}
        for _, connection in places:
            connection.close()
        _end([process for process, _ in places])


def _end(processes) -> None:
    """Ask processes to end, and wait until they have; those that do not are killed."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(until - time.monotonic(), 0))
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


def _why(code: int | None) -> str:
    if code is None:
        return "the worker does not answer"
    if code >= 0:
        return f"the worker ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"the worker was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _visible_gpu(number: int) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[number].strip() if visible else str(number)


def _work(job: Job, connection: Connection) -> None:
    """Life of a worker: until its parent hangs up, asks it to end, or is gone."""
    from tracker.interrupts import interruptible

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with interruptible():
            worker = VideoWorker(job)
            while True:
                task = connection.recv()
                connection.send(worker.track(task, _teller(connection)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except KeyboardInterrupt:
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _teller(connection: Connection) -> Progress:
    last = ["", 0.0]

    def tell(name: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if name != last[0] or now - last[1] > TELL_SECONDS:
            last[:] = [name, now]
            connection.send((name, done, total))

    return tell
