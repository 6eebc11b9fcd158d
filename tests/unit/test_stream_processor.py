"""When a processor reads again: at once, or after it let some more gather."""

import math
import time
from itertools import pairwise

import pytest

from features.state_store import Lease
from features.stream_log import Entry
from features.stream_messages import Lateness
from features.stream_processor import ProcessorSettings, StreamProcessor

GATHER_SECONDS = 0.1


class Log:
    """Has one line more each time it is read; it is no transaction."""

    num_partitions = 1

    def __init__(self):
        self.read_at = []

    def read(self, _partition, *, max_entries):
        assert max_entries
        self.read_at.append(time.monotonic())
        return [Entry(str(len(self.read_at)), b"?")] if len(self.read_at) < 4 else []

    def acknowledge(self, _partition, _entries): ...

    def rewind(self, _partition): ...

    def count_waiting(self, _partition):
        return 0


class States:
    """Whole, and leased to whoever asks."""

    def is_whole(self):
        return True

    def renew(self, _lease, *, seconds):
        return seconds > 0

    def acquire(self, partition, *, seconds):
        return Lease(partition, str(seconds))

    def list_processors(self, processor, *, seconds):
        assert seconds
        return [processor]

    def write(self, updates, *, lease): ...

    def release(self, _lease): ...

    def forget_processor(self, _processor): ...


class Discard:
    """Takes what is archived and what is refused."""

    def append(self, _partition, _lines): ...

    def add(self, _partition, refused):
        assert len(list(refused)) == 1


def find_pauses(*, batch_rows, until_empty=False):
    """Return the seconds between the reads that found something."""
    log = Log()
    settings = ProcessorSettings(
        batch_rows=batch_rows,
        wait_seconds=0.001,
        gather_seconds=GATHER_SECONDS,
        lease_seconds=10,
        lateness=Lateness(math.inf, math.inf),
    )
    processor = StreamProcessor(
        log=log,
        states=States(),
        archive=Discard(),
        dead_letters=Discard(),
        settings=settings,
        is_temporary=lambda _: False,
    )
    processor.run(should_stop=lambda: len(log.read_at) >= 4, until_empty=until_empty)
    return [after - before for before, after in pairwise(log.read_at[:4])]


def test_a_batch_that_is_not_full_lets_the_next_one_gather():
    assert min(find_pauses(batch_rows=2)) >= GATHER_SECONDS


@pytest.mark.parametrize("how", [{"batch_rows": 1}, {"batch_rows": 2, "until_empty": True}])
def test_after_a_full_batch_and_when_the_log_is_to_be_emptied_nothing_is_waited_for(how):
    assert min(find_pauses(**how)) < GATHER_SECONDS
