"""setpriv(1) and unshare(1): programs that do not outlive whoever has started them, however that ends."""

from collections.abc import Sequence

Argv = tuple[str, ...]

NOT_RUN = (126, 127)
"""Exit codes of both, and of a shell, for a program that is not there or cannot be executed."""


def mortal(argv: Sequence[str]) -> Argv:
    """The kernel kills the program when its parent dies; not what the program has started itself."""
    return ("setpriv", "--pdeathsig", "KILL", "--", *argv)


def enclosed(argv: Sequence[str]) -> Argv:
    """With all that it starts, in whatever session or background: that is the kernel's to kill when the first ends.

    In process and mount namespaces of its own, so that the processes that it sees are its own too.
    """
    return mortal(("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--", *argv))
