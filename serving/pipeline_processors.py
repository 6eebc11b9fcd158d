"""Stream processors in processes of their own, which tell when each transaction was readable."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess

import numpy as np

from configs.schema import FraudConfig
from features.fraud_stream import connect_stream
from features.store import open_feature_store
from training.encoding import Floats

STOP_SECONDS = 10.0


@dataclass(frozen=True)
class ProcessorReport:
    """What one processor did.

    Attributes:
        counts: See ``features.stream_batch.StreamCounts``.
        readable: When each accepted transaction was readable, seconds since 1970.
        freshness: Seconds from when it was scored until then, in the same order.
        cpu_seconds: Of the whole process, its start apart.
    """

    counts: dict[str, int]
    readable: Floats
    freshness: Floats
    cpu_seconds: float


class Processors:
    """Running stream processors; made by ``start_processors``.

    Attributes:
        process_ids: One each.
    """

    def __init__(self, pipes: Sequence[Pipe], process_ids: Sequence[int]) -> None:
        self.process_ids = process_ids
        self._pipes = pipes

    def finish(self) -> list[ProcessorReport]:
        """Have each end once the log is empty, and tell what it did."""
        for pipe in self._pipes:
            pipe.send("stop")
        return [_receive(pipe) for pipe in self._pipes]


@contextmanager
def start_processors(config: FraudConfig, *, num_processors: int) -> Iterator[Processors]:
    """Start processors of the stream of ``config.runs``; none is left when the block ends."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Pipe] = []
    processes: list[BaseProcess] = []
    try:
        for _ in range(num_processors):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(
                target=_process, args=(config, theirs), daemon=True
            )
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            _receive(pipe)
        yield Processors(pipes, [process.pid for process in processes if process.pid])
    finally:
        for pipe in pipes:
            pipe.close()  # a processor that is still at it takes this for the end
        for process in processes:
            process.join(STOP_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()


def _process(config: FraudConfig, pipe: Pipe) -> None:
    """Be a processor: connect, process until told to stop and the log is empty, report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    stream = connect_stream(config.runs, open_feature_store(config.runs), config.stream)
    readable: list[tuple[float, Floats]] = []
    processor = stream.make_processor(
        observe=lambda seconds: readable.append((time.time(), seconds))
    )
    pipe.send("ready")
    cpu = time.process_time()
    processor.run(should_stop=pipe.poll)
    try:
        pipe.recv()
    except EOFError:
        return
    processor.run(until_empty=True)
    cpu = time.process_time() - cpu
    freshness = [seconds for _, seconds in readable]
    times = [np.full(len(seconds), time_) for time_, seconds in readable]
    pipe.send(
        ProcessorReport(
            counts=asdict(processor.counts),
            readable=np.concatenate([*times, np.empty(0)]),
            freshness=np.concatenate([*freshness, np.empty(0)]),
            cpu_seconds=cpu,
        )
    )


def _receive(pipe: Pipe) -> ProcessorReport:
    try:
        report: ProcessorReport = pipe.recv()
    except EOFError as error:
        raise RuntimeError("a stream processor died; its message is above") from error
    return report
