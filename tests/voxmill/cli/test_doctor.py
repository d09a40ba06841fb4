"""`voxmill doctor` prints what is there and what is missing, and its exit status agrees."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from voxmill.cli import doctor
from voxmill.core import storage


def test_a_whole_installation_is_well() -> None:
    findings = {finding.name: finding for finding in doctor.examine()}
    assert all(finding.ok is not False for finding in findings.values()), findings
    assert findings["torch"].detail and "MIT" in findings["weights whisper-base"].detail


def test_drivers_of_object_storage_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(storage.DRIVERS, "gs", ("no_such_driver", "gs"))
    findings = {finding.name: finding for finding in doctor.examine(libraries=[])}
    assert {f"{scheme}://" for scheme in storage.DRIVERS} <= findings.keys()
    assert findings["s3://"].ok and findings["s3://"].detail.startswith("s3fs 2")
    assert findings["gs://"] == doctor.Finding(
        "gs://", None, "no_such_driver is not installed; pip install voxmill[gs], for gs:// paths"
    )


def test_missing_weights_are_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VOXMILL_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    assert doctor.main(libraries=[("no-such-library", "no_such_library")]) == 1
    shown = capsys.readouterr().out
    assert "weights whisper-base" in shown and "voxmill fetch" in shown
    assert "No module named 'no_such_library'" in shown and "make install" in shown


def test_help_answers_at_once() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "voxmill", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "annotate" in done.stdout and "doctor" in done.stdout
    # A second on a quiet machine; an import of torch alone takes three.
    assert time.monotonic() - began < 3
