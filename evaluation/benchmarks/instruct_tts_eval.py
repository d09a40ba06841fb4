"""InstructTTSEval: texts with three instructions each, APS, DSD and RP, in English and Chinese (arXiv:2506.16381).

JSONL as the official scorer reads it (`"APS": {"instruction": ..., "gen_path": ...}`) or with plain strings, and the
data set's Parquet files. Every text and instruction is one utterance: `APS/ID`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from evaluation.benchmarks.benchmark import Benchmark, Collector, Utterance, lines_of
from voxmill.core.errors import UserError

NAME = "instruct-tts-eval"
TASKS = ("APS", "DSD", "RP")


def read_instruct_tts_eval(path: Path) -> Benchmark:
    """Utterances of a `.jsonl` or `.parquet` file, grouped by language and task (`en-APS`).

    The language is in the file's name (`..._en.jsonl`, `zh-00000.parquet`), or else detected from the texts.

    Raises:
        UserError: another kind of file, unreadable, or nothing usable in it.
    """
    collector = Collector()
    named = {part for part in path.stem.lower().replace("-", "_").split("_")}
    for number, record in _records(path, collector):
        text, id_ = record.get("text"), record.get("id", f"{number:06d}")
        if not isinstance(text, str) or not isinstance(id_, str | int):
            collector.fail(path, number, "`id` and `text` must be strings")
            continue
        seen = "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"
        language = next((code for code in ("en", "zh") if code in named), seen)
        if not any(task in record for task in TASKS):
            collector.fail(path, number, f"none of {', '.join(TASKS)} in it")
        for task in TASKS:
            value = record.get(task)
            instruction = value.get("instruction") if isinstance(value, dict) else value
            if isinstance(instruction, str) and instruction.strip():
                one = Utterance(f"{task}/{id_}", text, language, f"{language}-{task}", description=instruction.strip())
                collector.add(one, path, number)
            elif task in record:
                collector.fail(path, number, f"{task} holds no instruction")
    return collector.benchmark(NAME, NAME, path)


def _records(path: Path, collector: Collector) -> Iterator[tuple[int, dict[str, JsonValue]]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(path)
            columns = [name for name in ("id", "text", *TASKS) if name in file.schema_arrow.names]
            rows = file.read(columns=columns).to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        yield from enumerate(rows, start=1)
        return
    if path.suffix != ".jsonl":
        raise UserError(f"{path}: name a .jsonl or .parquet file of InstructTTSEval")
    for number, line in lines_of(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            collector.fail(path, number, f"not valid JSON ({error})")
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            collector.fail(path, number, "not a JSON object")
