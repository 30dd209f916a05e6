"""The command line, run in this process and as a program."""

import re
import subprocess
import sys

import pytest

from parallel_facade._integrations import demo as _demo
from parallel_facade._integrations.cli import main
from parallel_facade._integrations.demo import SourceFacts, SourceSurvey, demo_report


def test_the_demo_agrees_on_every_back_end(capsys):
    assert main(["demo", "--limit", "20", "--workers", "2"]) == 0

    printed = capsys.readouterr().out
    for name in ("serial", "thread", "process"):
        assert re.search(rf"^{name} +\d+\.\d\d s +\d+\.\d\d× +[\d,]+ +the same$", printed, re.M)
    assert "over 20 files" in printed
    assert printed.endswith("All results agree.\n")
    assert max(map(len, printed.splitlines())) <= 80


def test_a_difference_is_reported(monkeypatch):
    def run(self, backend, names, workers):
        return [SourceFacts(len(backend), 0, 0, 0, "", "") for _ in names]

    monkeypatch.setattr(SourceSurvey, "run", run)

    report = demo_report(["serial", "process"], limit=1)

    assert not report.agrees
    assert "DIFFERENT" in report.text


def test_the_survey_counts_what_is_there(tmp_path):
    (tmp_path / "a.py").write_text(
        "class A:\n    def f(self):\n        if 1 and 2:\n            pass\n\ndef g(): pass\n"
    )
    (tmp_path / "broken.py").write_text("def (\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "foreign.py").write_text("")
    survey = SourceSurvey(tmp_path)

    assert survey.files() == ["a.py", "broken.py"]
    assert survey.analyse("a.py")[:5] == (6, 2, 1, 2, "f")
    assert survey.analyse("broken.py")[:5] == (1, 0, 0, 0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--backends", "proces"], "did you mean 'process'"), (["--workers", "0"], "workers=0")],
)
def test_bad_arguments_are_refused_before_anything_runs(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(_demo.SourceSurvey, "files", lambda self: pytest.fail("it has started"))

    assert main(["demo", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_info_tells_versions_cpus_back_ends_and_sources(capsys, monkeypatch):
    monkeypatch.setenv("PARALLEL_FACADE_CHUNKSIZE", "7")

    assert main(["info"]) == 0

    printed = capsys.readouterr().out
    assert re.search(r"^  pathos +\d+\.\d+", printed, re.M)
    assert re.search(r"^CPUs: \d+ usable", printed, re.M)
    assert re.search(r"^  process +available$", printed, re.M)
    assert re.search(r"^  dask +(available|.*is not installed)", printed, re.M)
    assert re.search(r"^  chunksize +7 +environment$", printed, re.M)
    assert re.search(r"^  retries +0 +default$", printed, re.M)


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "parallel_facade", "info"]

    assert "Settings in force" in subprocess.check_output(command, text=True)


def test_who_reads_only_the_beginning_sees_no_traceback():
    command = [sys.executable, "-m", "parallel_facade", "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
