"""What a benchmark measures, for the run and for its report."""

import statistics
from typing import NamedTuple


class Measured(NamedTuple):
    """What one peer needed for one workload.

    Attributes:
        workload: The workload's name.
        title: What it is.
        peer: The peer's name; ``"limit: ..."`` for the physical limit.
        seconds: One time for each round; empty if the peer cannot do it.
        why_not: Why it cannot.
    """

    workload: str
    title: str
    peer: str
    seconds: list[float]
    why_not: str = ""

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)
