"""A question to a person."""

import sys


def asked(question: str) -> bool:
    """Whether a person at the terminal says yes; nobody there says no."""
    if not sys.stdin.isatty():
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
