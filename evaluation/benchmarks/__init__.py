"""Readers of the benchmarks' official files, by name. `KIND:PATH` names a benchmark on the command line."""

from evaluation.benchmarks.benchmark import Benchmark, Reader
from evaluation.benchmarks.cv3_eval import read_cv3_eval
from evaluation.benchmarks.instruct_tts_eval import read_instruct_tts_eval
from evaluation.benchmarks.minimax_mls import read_minimax_mls
from evaluation.benchmarks.seed_tts_eval import read_seed_tts_eval
from evaluation.benchmarks.text_list import read_text_list
from evaluation.benchmarks.thirty_languages import read_thirty_languages
from voxmill.core.errors import UserError
from voxmill.core.local_copies import local_copy
from voxmill.core.storage import to_path

READERS: dict[str, Reader] = {
    "seed-tts-eval": read_seed_tts_eval,
    "cv3-eval": read_cv3_eval,
    "minimax-mls": read_minimax_mls,
    "instruct-tts-eval": read_instruct_tts_eval,
    "thirty-languages": read_thirty_languages,
    "texts": read_text_list,
}


def read_benchmark(named: str) -> Benchmark:
    """The benchmark that `KIND:PATH` names; PATH may be a URI, of which this machine keeps a copy.

    Raises:
        UserError: no such kind, no such path, or nothing usable there.
    """
    kind, colon, place = named.partition(":")
    if not colon or kind not in READERS:
        raise UserError(f"{named!r} names no benchmark; write KIND:PATH with KIND one of {', '.join(READERS)}")
    path = to_path(place)
    if not place or not path.exists():
        raise UserError(f"{named}: {place or 'the path'} is not there; name the benchmark's file or folder")
    if path.is_file():
        # What it names lies beside it.
        return READERS[kind](local_copy(path.parent, recursive=True) / path.name)
    return READERS[kind](local_copy(path, recursive=True))
