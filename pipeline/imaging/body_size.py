"""How large a body is against those that a network learned from, told by how well it knows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def body_size_seen(
    certainty_at: Callable[[float], float], sizes: Sequence[float], margin: float
) -> float:
    """The size at which a network knows a body best: from 1 down, else up, step by step as long as
    it gains.

    A body of the usual size is known as well a little off its size, so that a step must gain more
    than chance does; and fewer sizes are tried than there are.

    Args:
        certainty_at: 0 to 1, how sure the network is if the body is taken for so many times the
            usual size.
        sizes: that may be tried.
        margin: what a step must gain.
    """
    usual = found = certainty_at(1.0)
    size = 1.0
    for way in (
        sorted((s for s in sizes if s < 1.0), reverse=True),
        sorted(s for s in sizes if s > 1.0),
    ):
        for tried in way:
            certainty = certainty_at(tried)
            if certainty <= found + margin:
                break
            size, found = tried, certainty
        if found > usual:
            break
    return size
