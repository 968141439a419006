"""Errors that end a run, each with the exit code a shell sees.

A message always has three parts: what was expected, what was found, what to do.
"""

from __future__ import annotations

#: What is said where a name stands in the way of being kept (MyosymmetryError.private).
NAMES_ON_TERMINAL = (
    "which names are meant is said on a terminal only, as by `myosymmetry inspect`: nothing that "
    "is kept may name a person"
)


class MyosymmetryError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        problem: one sentence naming the subject of the problem (file, muscle, option).
        expected: what would have been right.
        found: what was there instead, with its value.
        action: what the user can do about it.
        private: names of files and other words of the user's data in which the problem lies. They
            may name a person: they are for the eyes of whoever sits at the terminal, no part of the
            message, and kept in no file.
    """

    exit_code = 70

    def __init__(
        self,
        problem: str,
        *,
        expected: str = "",
        found: str = "",
        action: str = "",
        private: str = "",
    ) -> None:
        self.problem = problem
        self.expected = expected
        self.found = found
        self.action = action
        self.private = private
        parts = [problem.rstrip(".") + "."]
        if expected:
            parts.append(f"Expected: {expected.rstrip('.')}.")
        if found:
            parts.append(f"Found: {found.rstrip('.')}.")
        if action:
            parts.append(f"What to do: {action.rstrip('.')}.")
        super().__init__(" ".join(parts))


class UsageError(MyosymmetryError):
    """Wrong arguments, configuration or output location (exit code 2)."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file that cannot be used as written (exit code 2)."""


class InputError(MyosymmetryError):
    """Input files that are missing, broken or contradict each other (exit code 3)."""

    exit_code = 3


class SubjectUnusableError(MyosymmetryError):
    """Readable input that cannot give an asymmetry, e.g. one leg only (exit code 4)."""

    exit_code = 4


class ResultsError(MyosymmetryError):
    """Published results that are incomplete or contradict themselves (exit code 5)."""

    exit_code = 5


class InvariantError(MyosymmetryError):
    """A core type was given values that contradict each other: a bug (exit code 70)."""

    exit_code = 70


class UnmetNeedError(MyosymmetryError):
    """The machine gave too little for this subject, e.g. memory (exit code 6): try again with
    more."""

    exit_code = 6


def out_of_memory(error: MemoryError) -> UnmetNeedError:
    """What a failed allocation means to the user."""
    return UnmetNeedError(
        "There was not enough memory",
        expected="more memory than this process may have",
        found=str(error) or "an allocation that failed",
        action="give the job more memory, or process fewer subjects at a time (--nprocs)",
    )
