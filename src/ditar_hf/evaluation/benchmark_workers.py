"""Where a system of the benchmark runs: in a process of its own, which has its own memory, or in this one."""

import gc
import logging
import multiprocessing
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size

from .benchmark_plan import build_system
from .benchmark_systems import SystemSpec
from .benchmark_timing import PeakMemory, Run
from .summary import one_line

# what a process is given to end by itself
PATIENCE_SECONDS = 30.0


class SystemFailure(Exception):
    """A system that could not go on, mostly for lack of memory; the others do."""


@dataclass(frozen=True)
class Memory:
    """
    Memory of a system in one call.

    Args:
        rest_bytes (`int`): Before it.
        peak_bytes (`int`): The most in it.
    """

    rest_bytes: int
    peak_bytes: int


def _is_out_of_memory(error: BaseException) -> bool:
    is_known = isinstance(error, Exception) and should_reduce_batch_size(error)
    return is_known or isinstance(error, MemoryError | torch.OutOfMemoryError)


class LocalWorker:
    """
    Runs a system in this process, where memory cannot be told apart.

    Args:
        spec ([`SystemSpec`]): Which one.

    Raises:
        ValueError: If it cannot be built.
        SystemFailure: If there is too little memory for it.
    """

    def __init__(self, spec: SystemSpec):
        self.name = spec.name
        try:
            self.system = build_system(spec)
        except (RuntimeError, MemoryError) as error:
            self._raise_for_memory(error)

    def _raise_for_memory(self, error: Exception) -> None:
        """Raises the failure that lack of memory is, or the error itself."""
        if not _is_out_of_memory(error):
            raise error
        raise SystemFailure(f"out of memory: {one_line(error)}") from error

    def warm_up(self, batch_size: int) -> Memory | None:
        """
        A call that is not timed.

        Args:
            batch_size (`int`): Rows.

        Returns:
            [`Memory`], or `None` where it cannot be told apart.

        Raises:
            SystemFailure: If memory does not suffice.
        """
        self.speak(batch_size)
        return None

    def speak(self, batch_size: int) -> Run:
        """
        A call of the system.

        Args:
            batch_size (`int`): Rows.

        Returns:
            [`Run`].

        Raises:
            SystemFailure: If memory does not suffice.
        """
        try:
            return self.system.speak(batch_size)
        except (RuntimeError, MemoryError) as error:
            self._raise_for_memory(error)

    def close(self) -> None:
        """Gives the memory back."""
        self.system = None
        gc.collect()


class ProcessWorker:
    """
    Runs a system in a process of its own, which waits while others are timed.

    Args:
        spec ([`SystemSpec`]): Which one.
        threads (`int`, *optional*): Of torch in that process; torch's own number by default.

    Raises:
        ValueError: If it cannot be built.
        SystemFailure: If there is too little memory for it.
    """

    def __init__(self, spec: SystemSpec, threads: int | None = None):
        self.name = spec.name
        # a fresh interpreter: a copy of this process would share the locks of torch's threads
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, spec, threads), daemon=True)
        self._process.start()
        other.close()  # so that reading fails when the process ends
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def warm_up(self, batch_size: int) -> Memory | None:
        """A call that is not timed, as [`LocalWorker.warm_up`]; memory is always told."""
        return self._ask("warm_up", batch_size)

    def speak(self, batch_size: int) -> Run:
        """A call of the system, as [`LocalWorker.speak`]."""
        return self._ask("speak", batch_size)

    def close(self) -> None:
        """Ends the process."""
        try:
            self._connection.send(None)
        except OSError:
            pass  # it has ended
        self._process.join(PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()
        self._connection.close()

    def _ask(self, action: str, batch_size: int) -> Any:
        try:
            self._connection.send((action, batch_size))
        except OSError as error:
            raise SystemFailure(self._end()) from error
        return self._answer()

    def _answer(self) -> Any:
        try:
            kind, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise SystemFailure(self._end()) from error
        if kind == "answer":
            return value
        if kind == "failure":
            raise SystemFailure(value)
        raise ValueError(value) if kind == "refusal" else RuntimeError(f"{self.name} failed:\n{value}")

    def _end(self) -> str:
        self._process.join(PATIENCE_SECONDS)
        code = self._process.exitcode
        killed = " (killed, as systems do that run out of memory)" if code == -signal.SIGKILL else ""
        return f"its process ended with {code}{killed}"


def _serve(connection: Connection, spec: SystemSpec, threads: int | None) -> None:
    """Builds a system, and runs it as often as it is asked to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks is interrupted, and ends this one
    logger = logging.getLogger("ditar_hf")
    level = logger.level
    logger.setLevel(logging.ERROR)  # each call would tell that it ran into its limit
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        worker = LocalWorker(spec)
        connection.send(("answer", None))
        while (request := connection.recv()) is not None:
            connection.send(_perform(worker, *request))
    except EOFError:
        pass  # there is nobody to answer
    except Exception as error:
        connection.send(_as_message(error))
    finally:
        logger.setLevel(level)


def _perform(worker: LocalWorker, action: str, batch_size: int) -> tuple[str, Any]:
    try:
        if action == "speak":
            return "answer", worker.speak(batch_size)
        with PeakMemory(worker.system.device) as memory:
            worker.speak(batch_size)
        return "answer", Memory(memory.rest_bytes, memory.peak_bytes)
    except SystemFailure as error:
        return _as_message(error)


def _as_message(error: Exception) -> tuple[str, str]:
    # not the error itself: not every one survives the way to another process
    if isinstance(error, SystemFailure):
        return "failure", str(error)
    if isinstance(error, ValueError | OSError):
        return "refusal", one_line(error)
    return "error", "".join(traceback.format_exception(error))
