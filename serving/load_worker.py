"""One process's part of a load run: an epoll loop that sends what is due and counts the answers.

Plain sockets and bytes rendered beforehand, because the generator shares its cores with what it
measures: each microsecond it takes is one the service lacks. The latency of a request runs from the
instant it was due, whether or not it could be sent then. A generator that waits for a slow answer
before it sends the next request, and starts the clock only then, leaves out just the requests that
would have waited ("coordinated omission"). A request that failed counts with the time until it did:
where it was never answered, a lower bound. Only a refusal on purpose (503) is not timed.

Source: Gil Tene, "How NOT to Measure Latency" (2013), and his wrk2.
"""

from __future__ import annotations

import math
import select
from collections.abc import Iterator

from serving.load_connection import Connection
from serving.load_http import Answer, render_request
from serving.load_plan import Plan, WorkerReport
from serving.load_pool import IN, OUT, ConnectionPool, clock
from serving.load_recorder import Recorder
from serving.load_schedule import draw_arrivals

LOOK_SECONDS = 0.1
"""How often connections are looked at for answers that do not come, and closed ones reopened."""
RECEIVE_BYTES = 16_384  # a larger buffer would be mapped anew, at 20 us, for each answer
SERIALS_PER_PROCESS = 10**14
OK, UNAVAILABLE = 200, 503
REFUSED, CLOSED = "connection refused", "connection closed"
LATE, NEVER_SENT = "no answer in time", "never sent"


class LoadLoop:
    """Sends one worker's requests; ``run`` returns when the last is answered or given up."""

    def __init__(self, plan: Plan, *, stop_fd: int) -> None:
        """Render the requests; ``stop_fd`` becomes readable when the run is to end early."""
        self._plan = plan
        host, path, headers = plan.target.authority, plan.target.path, plan.target.headers
        self._rows = [
            render_request(body, host=host, path=path, headers=headers) for body in plan.bodies
        ]
        self._pool = pool = ConnectionPool(plan.address, size=plan.connections)
        self._idle, self._by_fd, self._epoll = pool.idle, pool.by_fd, pool.epoll
        self._epoll_fds = (pool.epoll.fileno(),)
        self._stop_fd = stop_fd
        self._epoll.register(stop_fd, IN)
        self._num_busy = 0
        self._num_sent = plan.process * len(plan.bodies) // plan.processes  # each starts elsewhere
        self._serial = plan.process * SERIALS_PER_PROCESS
        self._is_stopped = False
        self._begin = self._end = self._due = math.inf
        self._num_left = math.inf if plan.num_requests is None else plan.num_requests
        self._arrivals: Iterator[float] = iter(())
        self._recorder = Recorder(plan, begin=0.0)

    def connect(self) -> None:
        """Open every connection.

        Raises:
            ConnectionError: If none can be opened, or not all in time.
        """
        pool, deadline = self._pool, clock() + self._plan.timeout_seconds
        while len(self._idle) < pool.size:
            pool.open(clock())
            for fd, mask in self._epoll.poll(LOOK_SECONDS):
                self._handle(fd, mask)
            if pool.is_down or clock() > deadline:
                raise ConnectionError(f"nobody answers at {self._plan.target.url}")

    def run(self, start: float) -> WorkerReport:
        """Send from ``start``, of ``time.perf_counter``, until the plan is done."""
        plan = self._plan
        self._begin = begin = start + plan.warm_up_seconds
        self._end = begin + plan.seconds
        self._recorder = recorder = Recorder(plan, begin=begin)
        self._arrivals = self._schedule(start)
        self._due = next(self._arrivals, math.inf)
        send = self._send_at_once if plan.rate is None else self._send_due
        handle = self._handle
        next_look = start
        while not self._is_stopped:
            now = clock()
            if now >= next_look:
                next_look = now + LOOK_SECONDS
                if now >= begin and not recorder.is_measuring:
                    recorder.begin()
                self._look(now)
                if self._is_done(now):
                    break
            send(now)
            for fd, mask in self._wait(next_look):
                handle(fd, mask)
        return self._finish()

    def _schedule(self, start: float) -> Iterator[float]:
        plan = self._plan
        if plan.rate is None:
            return
        times = draw_arrivals(
            plan.rate,
            arrivals=plan.arrivals,
            seed=plan.seed,
            process=plan.process,
            processes=plan.processes,
        )
        for time_due in times:
            if start + time_due >= self._end or self._num_left <= 0:
                return
            yield start + time_due

    def _is_done(self, now: float) -> bool:
        if now >= self._end + self._plan.timeout_seconds:
            return True
        is_all_sent = self._num_left <= 0 or now >= self._end
        if self._plan.rate is not None:
            is_all_sent = self._due == math.inf
        return is_all_sent and not self._num_busy

    def _wait(self, next_look: float) -> list[tuple[int, int]]:
        """Wait for answers, but not past the next request that could leave."""
        if self._due == math.inf or not self._idle:
            return self._epoll.poll(LOOK_SECONDS)
        seconds = min(self._due, next_look) - clock()
        # epoll waits whole milliseconds, select microseconds
        if seconds > 0 and not select.select(self._epoll_fds, (), (), seconds)[0]:
            return []
        return self._epoll.poll(0)

    def _send_due(self, now: float) -> None:
        """Open loop: send what is due, as long as there is a connection to send it on."""
        while self._due <= now:
            if self._idle:
                self._send(self._idle.popleft(), self._due)
            elif self._pool.is_down:
                self._refuse(self._due, now)
            else:
                return
            self._due = next(self._arrivals, math.inf)

    def _send_at_once(self, now: float) -> None:
        """Closed loop: every connection that has its answer asks again."""
        while self._idle and now < self._end and self._num_left > 0:
            self._send(self._idle.popleft(), clock())

    def _send(self, connection: Connection, due: float) -> None:
        self._num_sent += 1
        connection.row = row = self._num_sent % len(self._rows)
        before, after = self._rows[row]
        if after is None:
            data = before
        else:
            self._serial += 1
            connection.serial = serial = b"%016d" % self._serial
            data = before + serial + after
        connection.due, connection.state = due, "busy"
        self._num_busy += 1
        connection.sent = sent = clock()
        if due >= self._begin:
            self._count_sent(sent, due=due, freed=connection.freed)
        try:
            count = connection.send(data)
        except BlockingIOError:
            count = 0
        except OSError:
            self._lose(connection, CLOSED)
            return
        if count < len(data):
            connection.unsent = data[count:]
            self._epoll.modify(connection.fd, IN | OUT)

    def _count_sent(self, sent: float, *, due: float, freed: float) -> None:
        """Count a request; it could have left when it was due and its connection was free."""
        report = self._recorder.report
        report.requests += 1
        self._num_left -= 1
        if freed > due:
            report.waited += 1
            due = freed
        self._recorder.note_lag(sent - due)

    def _refuse(self, due: float, now: float) -> None:
        """Count a request that nobody would take."""
        if due >= self._begin:
            self._recorder.report.requests += 1
            self._num_left -= 1
            self._recorder.note_failed(REFUSED, due=due, now=now)

    def _handle(self, fd: int, mask: int) -> None:
        """Do what an event asks for."""
        connection = self._by_fd.get(fd)
        if connection is None:
            self._is_stopped |= fd == self._stop_fd
        elif connection.state == "busy":
            if connection.unsent and mask & OUT:
                self._send_rest(connection)
            if mask & ~OUT:
                self._receive(connection)
        elif connection.state == "connecting":
            self._pool.end_connecting(connection, clock())
        else:  # the service closes an idle connection, as it may
            self._idle.remove(connection)
            self._pool.reconnect(connection)

    def _send_rest(self, connection: Connection) -> None:
        try:
            connection.unsent = connection.unsent[connection.send(connection.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            return  # the answer, or the end of the stream, is there to be read
        if not connection.unsent:
            self._epoll.modify(connection.fd, IN)

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.recv(RECEIVE_BYTES)
            now = clock()
            reader = connection.reader
            answer = reader.feed(data) if data else reader.finish()
        except BlockingIOError:
            return
        except OSError:
            self._lose(connection, CLOSED)
            return
        except ValueError as error:
            self._lose(connection, str(error))
            return
        if answer is not None:
            self._take(connection, answer, now)

    def _take(self, connection: Connection, answer: Answer, now: float) -> None:
        """Judge an answer, count it, and let the connection go on."""
        status, body, keeps_alive = answer
        if connection.due >= self._begin:
            error = None
            if status == OK:
                if (check := self._plan.check) is not None:
                    error = check(body, row=connection.row, serial=connection.serial)
            elif not OK <= status < 300:
                error = f"status {status}"
            if error is None:
                self._recorder.note_accepted(due=connection.due, sent=connection.sent, now=now)
            elif status == UNAVAILABLE:
                self._recorder.report.shed += 1
            else:
                self._recorder.note_failed(error, due=connection.due, now=now)
        self._num_busy -= 1
        if keeps_alive and not connection.unsent:
            connection.state, connection.freed = "idle", now
            self._idle.append(connection)
        else:
            self._pool.reconnect(connection)

    def _lose(self, connection: Connection, kind: str) -> None:
        """Count the request under way as failed now, and connect again."""
        self._fail(connection, kind, clock())
        self._pool.reconnect(connection)

    def _look(self, now: float) -> None:
        """Give up on answers that do not come, and connect again where it is time.

        In a closed loop each attempt to connect that is refused stands for a request.
        """
        for connection in list(self._by_fd.values()):
            if connection.state == "busy" and now - connection.sent > self._plan.timeout_seconds:
                self._fail(connection, LATE, now)
                self._pool.reconnect(connection)
        self._pool.open(now)
        if self._plan.rate is None:
            for _ in range(self._pool.num_refused):
                self._refuse(now, now)
        self._pool.num_refused = 0

    def _fail(self, connection: Connection, kind: str, now: float) -> None:
        self._num_busy -= 1
        if connection.due >= self._begin:
            self._recorder.note_failed(kind, due=connection.due, now=now)

    def _finish(self) -> WorkerReport:
        """Give up what has no answer, or, if stopped, forget it; close everything."""
        now, recorder = clock(), self._recorder
        for connection in self._by_fd.values():
            if connection.state == "busy" and self._is_stopped:
                recorder.report.requests -= connection.due >= self._begin
            elif connection.state == "busy":
                self._fail(connection, LATE, now)
        while self._due < math.inf and not self._is_stopped:
            if self._due >= self._begin:
                recorder.report.requests += 1
                recorder.note_failed(NEVER_SENT, due=self._due, now=now)
            self._due = next(self._arrivals, math.inf)
        recorder.report.reconnects = self._pool.num_opened - self._pool.size
        self._pool.close()
        return recorder.end()
