"""Progress on long work, on standard error, so that standard output stays a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def show_progress(
    description: str, *, total: float | None = None
) -> Iterator[Callable[[float], None]]:
    """Show one bar while the block runs; yield the function that advances it.

    Args:
        description: What is being done, as ``Tuning LightGBM``.
        total: How many steps there are; ``None`` shows a pulse, for work of unknown length.

    Yields:
        ``advance(steps)``.
    """
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%" if total else ""),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)
        yield lambda steps: progress.advance(task, steps)
        progress.update(task, total=total or 1.0, completed=total or 1.0)
