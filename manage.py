#!/usr/bin/env python
"""Run Pointsman's commands: `manage.py up` starts everything, `manage.py help` lists the rest."""

import os
import sys


def main() -> None:
    # What we write (journal, reports, logs, queues) is nobody else's business on a shared machine.
    os.umask(0o077)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
    if sys.argv[1:2] == ["serve"]:
        # Before anything else of the project is imported.
        from gateway.compiled import use_compiled

        use_compiled()
    try:
        from django.core.management import execute_from_command_line
    except ModuleNotFoundError:
        sys.exit(
            f"Django is not installed for {sys.executable}. Commands run as `.venv/bin/python manage.py …`, and "
            "`make run` installs what they need (`make clean` first, when the system's Python has changed)."
        )
    try:
        execute_from_command_line(sys.argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # `manage.py export_requests … | head`: whoever read our output has enough. Python's own last flush must not
        # complain of it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell reports a program that SIGPIPE ended


if __name__ == "__main__":
    main()
