"""A target, bodies and a rate become counted answers: load from several processes, as one result.

``measure_load`` is the entry for benches. The processes are spawned, connect, wait for each other
and begin at one instant; what they counted is added up.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from serving.load_plan import Check, Plan, Target, WorkerReport
from serving.load_result import MAX_SEND_LAG_MS, LoadResult, merge_reports
from serving.load_schedule import Arrivals
from serving.load_worker import LoadLoop

START_SECONDS = 0.1
"""From the last worker's readiness to the common start."""
MAX_INTERVALS = 1000


def measure_load(
    target: Target,
    bodies: Sequence[bytes],
    *,
    rate: float | None,
    arrivals: Arrivals = "poisson",
    connections: int,
    processes: int = 1,
    seconds: float,
    warm_up_seconds: float = 1.0,
    seed: int = 0,
    check: Check | None = None,
    num_requests: int | None = None,
    timeout_seconds: float = 10.0,
    interval_seconds: float = 1.0,
    max_send_lag_ms: float = MAX_SEND_LAG_MS,
    watch: Callable[[float], None] | None = None,
) -> LoadResult:
    """Send requests to a service, check and time the answers.

    Args:
        target: Where to; ``serving.load_address.check_may_be_loaded`` is the caller's duty.
        bodies: What to send, in turn, again and again; where one holds ``SERIAL_FIELD``, each
            request has its own number.
        rate: Requests a second of all processes together, open loop; None for a closed loop: each
            connection asks again as soon as it has its answer.
        arrivals: Of the open loop.
        connections: How many in all, kept alive, at least one a process.
        processes: How many generate.
        seconds: How long to measure.
        warm_up_seconds: How long to send before that, uncounted.
        seed: Of the arrivals.
        check: Looks at every answer of status 200; without it the status is enough.
        num_requests: End sooner, after so many.
        timeout_seconds: How long an answer may take.
        interval_seconds: Length of the intervals of the result's time series.
        max_send_lag_ms: Above this 99th percentile of the generator's own delay the result is
            doubtful.
        watch: Called a few times a second with the seconds since the measurement began.

    Returns:
        What was seen; after Ctrl-C too, marked ``interrupted``, unless it came before the start.

    Raises:
        ValueError: If nobody answers at the target, no machine has its name, or there is nothing
            to send.
    """
    if not bodies:
        raise ValueError("there is no body to send")
    if connections < processes:
        raise ValueError(f"{processes} processes need as many connections, not {connections}")
    interval_seconds = max(interval_seconds, seconds / MAX_INTERVALS)
    address = target.look_up()
    plans = [
        Plan(
            target=target,
            address=address,
            bodies=bodies,
            rate=rate,
            arrivals=arrivals,
            connections=_share(connections, process, processes),
            process=process,
            processes=processes,
            seconds=seconds,
            warm_up_seconds=warm_up_seconds,
            num_requests=None if num_requests is None else _share(num_requests, process, processes),
            seed=seed,
            check=check,
            timeout_seconds=timeout_seconds,
            interval_seconds=interval_seconds,
        )
        for process in range(processes)
    ]
    with _start_workers(plans) as pipes:
        start = time.perf_counter() + START_SECONDS
        for pipe in pipes:
            pipe.send(start)
        reports, interrupted = _collect(pipes, begin=start + warm_up_seconds, watch=watch)
    return merge_reports(
        reports,
        offered_qps=rate,
        interval_seconds=interval_seconds,
        max_send_lag_ms=max_send_lag_ms,
        interrupted=interrupted,
    )


def _share(total: int, part: int, parts: int) -> int:
    """Split a count as evenly as it goes."""
    return total // parts + (part < total % parts)


@contextmanager
def _start_workers(plans: Sequence[Plan]) -> Iterator[list[Pipe]]:
    """Spawn the workers, wait until all are connected; none is left when the block ends."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Pipe] = []
    processes: list[BaseProcess] = []
    try:
        for plan in plans:
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(target=_work, args=(plan, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            if (problem := _receive(pipe)) is not None:
                raise ValueError(problem)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()  # a worker that is still at it takes this for the end
        for process in processes:
            process.join(2.0)
            if process.is_alive():
                process.kill()
                process.join()


def _work(plan: Plan, pipe: Pipe) -> None:
    """Be a worker: connect, wait for the start, send, report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    loop = LoadLoop(plan, stop_fd=pipe.fileno())
    try:
        loop.connect()
    except ConnectionError as error:
        pipe.send(str(error))
        return
    pipe.send(None)
    try:
        start = pipe.recv()
    except EOFError:
        return
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles
    report = loop.run(start)
    if plan.check is not None:
        report.tallies = plan.check.tallies
    try:
        pipe.send(report)
    except OSError:
        return


def _receive(pipe: Pipe) -> object:
    try:
        return pipe.recv()
    except EOFError as error:
        raise RuntimeError("a process of the load generator died; its message is above") from error


def _collect(
    pipes: Sequence[Pipe], *, begin: float, watch: Callable[[float], None] | None
) -> tuple[list[WorkerReport], bool]:
    """Wait for every worker's report; Ctrl-C asks them for what they have."""
    interrupted = False
    reports: list[WorkerReport] = []
    waiting = list(pipes)
    while waiting:
        try:
            for pipe in wait(waiting, timeout=0.2):
                assert isinstance(pipe, Pipe)
                report = _receive(pipe)
                assert isinstance(report, WorkerReport)
                reports.append(report)
                waiting.remove(pipe)
            if watch is not None:
                watch(time.perf_counter() - begin)
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            for pipe in waiting:
                pipe.send("stop")
    return reports, interrupted
