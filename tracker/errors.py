"""The one exception that a person at the command line is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Input or environment that the program cannot work with.

    The message is one line that says what is wrong, where, and what to do. The command line prints it without a
    traceback and exits with :attr:`exit_code`.
    """

    exit_code = 2
