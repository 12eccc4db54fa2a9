"""What the benchmarks run in Python."""

from __future__ import annotations

import gc
import threading
import time

held = bytes(100_000_000)

_stop = threading.Event()
_threads: list[threading.Thread] = []


def burn(seconds: float) -> None:
    """Use the processor and the GIL."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def fib(n: int) -> int:
    """Keep one core busy, with nothing but Python."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def start_background() -> None:
    """Run a thread that nobody calls, as libraries do."""
    _stop.clear()
    _threads.append(threading.Thread(target=_burn_until_stopped, daemon=True))
    _threads[-1].start()


def stop_background() -> None:
    _stop.set()
    _threads.pop().join()


def _burn_until_stopped() -> None:
    while not _stop.is_set():
        sum(range(1_000))


def count_objects() -> int:
    gc.collect()
    return len(gc.get_objects())
