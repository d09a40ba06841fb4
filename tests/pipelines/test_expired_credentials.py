"""Credentials of object storage that expire in the middle end the job in one line; with new ones it resumes."""

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from samples.s3_proxy import Answer, Request, error_answer, s3_proxy
from tests.support.s3_server import BUCKET, s3_server
from voxmill.core.local_ray import environment, local_ray
from voxmill.core.storage import to_path
from voxmill.data.layout import read_index

ROOT = Path(__file__).resolve().parents[2]
OUT = f"s3://{BUCKET}/expiring"
QUICK = ("run.workers=1", "label.unit_seconds=2", "voice_attributes.labellers=[]", "corpus_labels.labels=[]")


class Credentials:
    """They expire with the upload number `after` below a folder of OUT, and stay so until they are renewed."""

    def __init__(self) -> None:
        self.expired, self.folder, self.after = False, "", 0

    def renew(self, folder: str, after: int) -> None:
        self.expired, self.folder, self.after = False, folder, after

    def answer(self, request: Request) -> Answer | None:
        if request.is_upload and self.folder and self.folder in request.key:
            self.after -= 1
            self.expired = self.expired or self.after < 0
        return error_answer(403, "ExpiredToken") if self.expired else None


def annotate(corpus: Path, address: str) -> subprocess.CompletedProcess[str]:
    """A job on the Ray at `address`, which a start of its own takes longer than."""
    command = [sys.executable, str(ROOT / "pipelines" / "annotate.py"), str(corpus), OUT, *QUICK]
    own = environment() | {"RAY_ADDRESS": address, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=own)


@pytest.mark.slow
def test_the_job_ends_in_one_line_and_resumes(tmp_path: Path) -> None:
    corpus = tmp_path / "in"
    corpus.mkdir()
    recordings = [ROOT / "samples" / "recordings" / name for name in ("en-1.flac", "es-1.flac")]
    for recording in recordings:
        samples_T, rate = soundfile.read(recording, frames=8 * soundfile.info(recording).samplerate)
        soundfile.write(corpus / recording.name, samples_T, rate)
    credentials = Credentials()
    with s3_server(), s3_proxy(credentials.answer), local_ray(num_cpus=2) as address:
        # While units are labelled, and while shards are packed.
        for folder, after in (("/work/units/", 1), ("/shards/", 0)):
            credentials.renew(folder, after)
            done = annotate(corpus, address)
            # Ray's own lines begin with a time in brackets.
            lines = [line for line in done.stderr.splitlines() if not line.startswith("[20")]
            assert done.returncode == 2 and credentials.expired, done.stdout + done.stderr
            assert len(lines) == 1 and "credentials have expired; renew them" in lines[0], done.stderr
        credentials.renew("", 0)
        done = annotate(corpus, address)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "already done: 2 of 2 work units" in done.stdout
        rows = read_index(to_path(OUT) / "recordings.parquet").to_pylist()
        assert {row["path"]: row["state"] for row in rows} == {recording.name: "kept" for recording in recordings}
