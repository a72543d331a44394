"""How is a long backtest shared among processes? Each takes a stretch of the period, in time order.

Reads: request_record, in each process over a connection of its own. Short runs stay in the caller's process. The others
give way to whatever else wants the processor: requests are served beside a backtest. A conversation that goes on from
one process's stretch into the next begins anew there.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Generator
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from django.db import connection

from billing.backtest_judging import Judge, Setup
from billing.backtest_reading import Slice, read_rows
from billing.backtest_tally import Tally

PROCESS_COUNT: Final = 2
# Below, starting them costs more than they save.
MIN_RECORDS: Final = 60_000
NICENESS: Final = 10
DONE: Final = None

# What a child inherits open and may neither use nor close: it is its parent's.
_inherited: list[Any] = []


class ChildEnded(RuntimeError):
    """A process of a backtest ended before its part was done."""


def judge_slices(setup: Setup, slices: list[Slice]) -> Generator[Tally, None, None]:
    """Judge slice by slice. Closing the iterator ends all processes. Raises ChildEnded."""
    parts = cut(slices, min(PROCESS_COUNT, os.cpu_count() or 1))
    if len(parts) < 2 or sum(part.record_count for part in slices) < MIN_RECORDS:
        yield from _judge(setup, slices)
        return
    # Forked, because compiled conditions can be handed to nobody in another way.
    context = multiprocessing.get_context("fork")
    children: list[Any] = []
    pipes: list[Connection] = []
    try:
        for part in parts:
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_work, args=(setup, part, theirs, os.getpid()), daemon=True)
            child.start()
            theirs.close()
            children.append(child)
            pipes.append(ours)
        yield from _collect(pipes)
    finally:
        for child in children:
            child.terminate()
            child.join()
        for pipe in pipes:
            pipe.close()


def cut(slices: list[Slice], count: int) -> list[list[Slice]]:
    """Cut a list of slices into at most `count` runs of about as many records each."""
    wanted = sum(part.record_count for part in slices) / count
    parts: list[list[Slice]] = [[]]
    taken = 0
    for part in slices:
        if parts[-1] and len(parts) < count and taken >= wanted * len(parts):
            parts.append([])
        parts[-1].append(part)
        taken += part.record_count
    return parts


def _judge(setup: Setup, slices: list[Slice]) -> Generator[Tally, None, None]:
    judge = Judge(setup)
    for part in slices:
        for row in read_rows(part.period):
            judge.judge(row)
        yield judge.take_tally()


def _collect(pipes: list[Connection]) -> Generator[Tally, None, None]:
    open_pipes = list(pipes)
    while open_pipes:
        for pipe in wait(open_pipes):
            assert isinstance(pipe, Connection)
            try:
                tally = pipe.recv()
            except EOFError:
                raise ChildEnded(
                    "a process of this backtest ended early; the worker's log says why"
                ) from None
            if tally is DONE:
                open_pipes.remove(pipe)
            else:
                yield tally


def _work(setup: Setup, slices: list[Slice], pipe: Connection, parent: int) -> None:
    """Judge one part in a child process, and say so slice by slice."""
    _inherited.append(connection.connection)
    connection.connection = None
    os.nice(NICENESS)
    for tally in _judge(setup, slices):
        if os.getppid() != parent:
            os._exit(1)  # nobody is left to hear it
        pipe.send(tally)
    pipe.send(DONE)
    connection.close()
