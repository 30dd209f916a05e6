"""ppft: its secret, what it leaves alone, and what it loses."""

import os

import pytest
from engines_here import die_once, needs, ppft_servers

from parallel_facade import BackendLostError, ConfigurationError, TaskTimeoutError, pmap

untidy = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@needs("ppft")
@pytest.mark.parametrize(
    ("secret", "reason"), [("", "is not set"), ("default", "is ppft's public default")]
)
def test_ppft_is_never_used_without_a_secret_of_its_own(secret, reason, monkeypatch):
    import ppft

    monkeypatch.setenv("PARALLEL_FACADE_PPFT_SECRET", ppft.Server.default_secret if secret else "")

    with pytest.raises(ConfigurationError, match=f"PARALLEL_FACADE_PPFT_SECRET {reason}"):
        pmap(abs, [1], backend="ppft:127.0.0.1:1")


@untidy
@needs("ppft")
def test_a_wrong_secret_is_an_error_in_bounded_time(cluster, untidy_ppft, monkeypatch):
    cluster(ppft_servers())
    monkeypatch.setenv("PARALLEL_FACADE_PPFT_SECRET", "a wrong one")

    with pytest.raises(
        BackendLostError, match="accepts this program(?s:.*)PARALLEL_FACADE_PPFT_SECRET"
    ):
        pmap(abs, [1], backend="ppft")


@untidy
@needs("ppft")
@pytest.mark.parametrize("path", [None, os.path.join(os.sep, "of", "the", "user")])
def test_ppft_leaves_the_environment_of_the_program_as_it_is(
    cluster, untidy_ppft, monkeypatch, path
):
    cluster(ppft_servers())
    if path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", path)

    assert pmap(abs, [-1], backend="ppft") == [1]
    assert os.environ.get("PYTHONPATH") == path


@untidy
@needs("ppft")
def test_the_deadline_ends_a_task_that_ppft_has_lost(cluster, untidy_ppft, tmp_path):
    cluster(ppft_servers())

    outcomes = pmap(
        lambda x: die_once(tmp_path, x),
        range(10),
        backend="ppft",
        task_timeout=3,
        return_exceptions=True,
    )

    assert isinstance(outcomes[5], TaskTimeoutError)
    assert outcomes[:5] + outcomes[6:] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
