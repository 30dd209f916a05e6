"""Make the pictures of the pages that show what the library draws: ``python docs/pictures.py``."""

from pathlib import Path

from parallel_facade import pmap, trace

HERE = Path(__file__).parent


def draw_trace() -> None:
    """Draw the timeline of a map whose arguments are too large."""
    table = b"x" * 8_000_000
    pmap(abs, range(100), backend="process", workers=2)  # so that the workers are there
    with trace() as timeline:
        pmap(len, [table] * 20, backend="process", workers=2)
    timeline.plot(HERE / "how-to" / "trace" / "trace.png")


draw_trace()
