"""Run trials: the local engine keeps a few processes and gives each of them one trial after another."""

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from foveate.new_process import python_command
from foveate.studies.trial import Trial, blank, write_trial

_BOOT = "from foveate.studies.worker import main; main()"
_STDERR_END = 4000  # characters at the end of a dead worker's stderr that are reported


@dataclass(frozen=True)
class Event:
    """What happened to a trial: "started", "epoch" (with its `row`) or "done" (with its `status`)."""

    kind: str
    trial: Trial
    row: dict[str, Any] | None = None
    status: str | None = None


class Engine(Protocol):
    """Runs trials, each of which writes its own folder, and reports events as they happen."""

    def run(self, trials: Sequence[Trial], on_event: Callable[[Event], None]) -> None:
        """Return when every trial has ended.

        An exception, also one from `on_event`, stops all trials before it is raised.
        """
        ...


class LocalEngine:
    """`jobs` processes on this machine, kept from trial to trial; if a process dies, only its own trial fails.

    Each process sees only one of `gpus`, which are named as in CUDA_VISIBLE_DEVICES and shared out evenly.
    """

    def __init__(self, jobs: int, gpus: Sequence[str] = ()):
        self.jobs, self.gpus = jobs, tuple(gpus)

    def run(self, trials: Sequence[Trial], on_event: Callable[[Event], None]) -> None:
        """Run every trial; one whose process died is recorded as failed."""
        waiting, messages = deque(trials), queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]()
        workers: set[_Worker] = set()
        try:
            while waiting or workers:
                while waiting and len(workers) < self.jobs:
                    gpu = min(self.gpus, key=[worker.gpu for worker in workers].count, default=None)
                    workers.add(_Worker(waiting.popleft(), messages, gpu))
                worker, message = _next(messages)
                if message is None:
                    workers.discard(worker)
                    if worker.trial is not None:
                        on_event(_record_death(worker))
                    worker.end()
                elif message["event"] == "ready":
                    on_event(Event("started", worker.expect()))
                elif message["event"] == "epoch":
                    on_event(Event("epoch", worker.expect(), row=message["row"]))
                else:
                    on_event(Event("done", worker.expect(), status=message["status"]))
                    worker.trial = None
                    if waiting:
                        worker.give(waiting.popleft())
                        on_event(Event("started", worker.expect()))
                    else:
                        worker.dismiss()
        finally:
            for worker in workers:
                worker.end()


class _Worker:
    """A process of `foveate.studies.worker` and the thread that listens to it."""

    def __init__(
        self, trial: Trial, messages: "queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]", gpu: str | None
    ):
        self.trial: Trial | None = None
        self.gpu = gpu
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        threads = str(trial.threads)
        self.process = subprocess.Popen(
            python_command(_BOOT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            env={
                **os.environ,
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}),
            },
            start_new_session=True,  # a terminal's Ctrl-C reaches only the study
        )
        self.give(trial)
        self.listener = threading.Thread(target=self._listen, args=(messages,), daemon=True)
        self.listener.start()

    def give(self, trial: Trial) -> None:
        """Send the next trial; if the process has died, the listener notices it."""
        self.trial = trial
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(trial.to_dict()).encode() + b"\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]

    def expect(self) -> Trial:
        """Return the current trial."""
        if self.trial is None:
            raise RuntimeError("a worker without a trial reported one")
        return self.trial

    def dismiss(self) -> None:
        """Close its stdin, which ends the process."""
        self.process.stdin.close()  # type: ignore[union-attr]

    def end(self) -> None:
        """End the process now, if it has not ended yet; its finished trials are complete on disk."""
        self.process.kill()
        self.process.wait()
        self.listener.join()
        for pipe in (self.process.stdin, self.process.stdout, self.stderr):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def describe_end(self) -> str:
        """Return how the process ended and the end of what it wrote to stderr."""
        code = self.process.wait()
        self.stderr.seek(0, os.SEEK_END)
        self.stderr.seek(max(0, self.stderr.tell() - _STDERR_END))
        stderr = self.stderr.read().decode(errors="replace").strip()
        memory = ", as Linux does when memory runs out" if code == -9 else ""
        how = f"was killed by signal {-code}{memory}" if code < 0 else f"ended with code {code}"
        return f"the process {how}" + (f": {stderr}" if stderr else "")

    def _listen(self, messages: "queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        for line in self.process.stdout or ():
            messages.put((self, json.loads(line)))
        self.process.wait()
        messages.put((self, None))


def _next(messages: "queue.SimpleQueue[Any]") -> Any:
    while True:
        try:
            return messages.get(timeout=0.5)  # a wait without an end would block signals on some platforms
        except queue.Empty:
            continue


def _record_death(worker: _Worker) -> Event:
    trial = worker.expect()
    path = trial.folder / "trial.json"
    if path.exists():  # it died after it wrote the trial
        return Event("done", trial, status=json.loads(path.read_bytes())["status"])
    write_trial(trial.folder, {**blank(trial), "error": worker.describe_end()})
    return Event("done", trial, status="failed")
