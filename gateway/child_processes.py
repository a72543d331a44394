"""How does a child process end when its parent does, even by `kill -9`?

Calls: prctl(PR_SET_PDEATHSIG) of the Linux kernel. No Django.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(signal_number: int = signal.SIGTERM) -> Callable[[], None]:
    """Return a function for Popen's `preexec_fn`: the child gets the signal when our thread ends.

    To be called in the parent. Children of children are not covered: each level does this for itself.
    """
    # Loaded here: the child between fork and exec should do as little as possible.
    libc = ctypes.CDLL(None, use_errno=True)
    parent_pid = os.getpid()

    def before_exec() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent_pid:
            # The parent ended before the request reached the kernel.
            os._exit(1)

    return before_exec


def die_with_parent_now(signal_number: int = signal.SIGTERM) -> None:
    """The same for a process that already runs."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
