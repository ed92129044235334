"""A process that runs trials: it reads them from stdin and writes events to stdout, one JSON object per line.

It ends at once when stdin closes, so it never outlives the study that started it.
"""

import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import queue
import signal
import threading
from typing import Any, BinaryIO


def main() -> None:
    """Run trials until stdin closes."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study, which closes our stdin
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # not sys.stdin: while a thread reads that, a forked process waits forever when it closes its copy
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)  # what a library prints must not look like an event

    def emit(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    trials: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, trials), daemon=True).start()

    from foveate.studies.trial import Trial, run_trial

    emit(event="ready")
    while True:
        result = run_trial(Trial.from_dict(trials.get()), lambda row: emit(event="epoch", row=row.to_dict()))
        _return_free_memory()
        emit(event="done", status=result["status"])


def _return_free_memory() -> None:
    """Give free memory back to the system: garbage in cycles, and what glibc keeps in pieces, grow with each trial."""
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()  # the libraries, which the next collections then pass over: 10 times as fast
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _read(requests: BinaryIO, trials: "queue.SimpleQueue[dict[str, Any]]") -> None:
    for line in requests:
        trials.put(json.loads(line))
    os._exit(0)
