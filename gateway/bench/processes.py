"""What did a process tree cost? CPU seconds and resident memory, and what the rest of the machine did meanwhile.

Reads: /proc.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def list_tree(pids: Iterable[int]) -> set[int]:
    """These processes and all their descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: set[int] = set()
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid not in found and _stat(pid):
            found.add(pid)
            todo += children.get(pid, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds that the trees of these processes have used so far, in steps of 10 ms."""
    ticks = 0
    for pid in list_tree(pids):
        if fields := _stat(pid):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def resident_mib(pids: Iterable[int]) -> float:
    """Resident memory of these trees; pages that processes share count once for each."""
    pages = 0
    for pid in list_tree(pids):
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * _PAGE_BYTES / 2**20


def machine_cpu_s() -> float:
    """CPU seconds that the whole machine has used so far."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / _TICKS_PER_S


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name (state, parent, ...), [] when there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
