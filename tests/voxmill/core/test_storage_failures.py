"""What object storage refuses is one line that says what and what to do; a real S3 server, and one that answers so."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.units.label_store import merged_units
from samples.s3_proxy import Answer, error_answer, s3_proxy
from tests.support.s3_server import BUCKET, s3_server
from voxmill.cli.app import run
from voxmill.core.audio import read_header
from voxmill.core.errors import UserError
from voxmill.core.files import list_files
from voxmill.core.storage import file_names, to_path

ROOT = Path(__file__).resolve().parents[3]
RECORDINGS = str(ROOT / "samples" / "recordings")


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server():
        yield


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(status, the line) of a command that says one line and nothing else."""
    capsys.readouterr()
    status = run(arguments)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 1 and not said.out, said
    return status, lines[0]


@pytest.mark.parametrize(
    "answer, words",
    [
        (error_answer(403, "AccessDenied"), "access is denied; check"),
        (error_answer(403, "InvalidAccessKeyId"), "check th"),
        (error_answer(400, "ExpiredToken"), "expired"),
        (error_answer(400, "AuthorizationHeaderMalformed"), "region"),
    ],
)
@pytest.mark.parametrize("command", ["annotate", "encode", "vacuum", "export"])
def test_mistakes_are_named(
    server: None,
    answer: Answer,
    words: str,
    command: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"s3://{BUCKET}/out"
    rest = {"annotate": [RECORDINGS, place], "encode": [place, "--vae", place], "vacuum": [place]}
    with s3_proxy(lambda request: answer):
        status, line = refusal([command, *rest.get(command, [place, "folder"])], capsys)
    assert status == 2 and words in line and place in line, line
    assert not list(tmp_path.iterdir())


def test_a_bucket_that_is_not_there(server: None, capsys: pytest.CaptureFixture[str]) -> None:
    status, line = refusal(["annotate", RECORDINGS, "s3://voxmill-nowhere/out"], capsys)
    assert status == 2 and "s3://voxmill-nowhere/out" in line and "there is no such bucket; make it" in line


def test_no_credentials(
    server: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    to_path("s3://x/y").fs.clear_instance_cache()  # type: ignore[attr-defined]
    status, line = refusal(["annotate", RECORDINGS, f"s3://{BUCKET}/out"], capsys)
    assert status == 2 and "there are no credentials; set those" in line
    to_path("s3://x/y").fs.clear_instance_cache()  # type: ignore[attr-defined]


def test_a_failing_server_is_no_mistake(server: None, capsys: pytest.CaptureFixture[str]) -> None:
    with s3_proxy(lambda request: error_answer(500, "InternalError")):
        status, line = refusal(["vacuum", f"s3://{BUCKET}/out"], capsys)
    assert status == 1 and "InternalError" in line or "500" in line, line


def test_what_cannot_be_seen_is_not_taken_for_nothing(server: None) -> None:
    place = to_path(f"s3://{BUCKET}/seen/there")
    place.write_bytes(b"x")
    assert place.is_file() and place.exists() and not place.is_dir() and place.parent.is_dir()
    assert not (place.parent / "nothing").exists()
    with s3_proxy(lambda request: error_answer(403, "AccessDenied")):
        unseen = to_path(str(place))
        for ask in (unseen.exists, unseen.is_file, unseen.is_dir, unseen.unlink, unseen.stat, unseen.read_bytes):
            with pytest.raises(PermissionError):
                ask()
        with pytest.raises(PermissionError):
            file_names(unseen.parent)
        for recursive in (False, True):
            with pytest.raises(PermissionError):
                list(list_files(unseen.parent, recursive=recursive))
        for read in (merged_units, read_header):
            with pytest.raises(UserError, match="access is denied"):
                read(unseen)
    assert [file.name for file in list_files(to_path(f"s3://{BUCKET}"), "seen", recursive=False)] == ["seen/there"]
    assert place.read_bytes() == b"x"
