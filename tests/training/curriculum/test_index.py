"""The index holds what its datasets say, clip by clip, is small, is made again when they change, and refuses others."""

import dataclasses
import json
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from model.sequence.layouts import compose_text
from model.sequence.text_tokenizer import TextTokenizer
from samples.fabricate import ALL, CHECKPOINT
from training.curriculum import corpus as corpus_module
from training.curriculum.corpus import Corpus, held_out_fraction, read_corpus
from training.curriculum.index import groups as index_groups
from training.curriculum.mixture import streams_of
from training.curriculum.recipe import Recipe, ReferencesConfig, load_recipe
from voxmill.cli.app import run
from voxmill.core.errors import UserError
from voxmill.data.layout import bucket_of, part_path
from voxmill.data.records import DESCRIPTION_AXES, MODES
from voxmill.data.schemas import CLIPS, LATENTS, write_index
from voxmill.data.shards import TarWriter, latent_bytes
from voxmill.data.transcript import plain_text

PATCH, BUCKETS = 4, 4
TEXTS = ["Hello there.", " ", "(sad) Well, no!", "你好世界，今天天气很好", "a\u2028b\x00\n(🎙", None]
TOKENIZER = TextTokenizer.from_folder(CHECKPOINT)


def labels(number: int, choose: random.Random) -> dict[str, Any]:
    """A clip as it may come: with and without each label, of all kinds that a rule looks at."""
    session = f"s{number // 6}"
    described = [
        {
            "axis": choose.choice(["design", "style", "both"]),
            "text": choose.choice(["a low voice (deep)", "slowly", "in a guessed way", "温柔的女声"]),
            "verdicts": choose.choice([[], [{"verdict": "pass"}], [{"verdict": "pass"}, {"verdict": "abstain"}]]),
        }
        for _ in range(choose.choice([0, 1, 2, 4]))
    ]
    others = [f"{session}-{choose.randrange(7)}" for _ in range(choose.choice([0, 0, 1, 3, 5]))]
    modes = choose.sample(ALL, k=choose.randrange(1, 6))
    return {
        "clip_id": f"{session}-{number % 6}",
        "recording_id": f"r{session}",
        "session": session,
        "duration": round(choose.uniform(0.2, 14.0), 3),
        "text": choose.choice(
            ["Hello there.", " ", "(sad) Well, no!", "你好世界，今天天气很好", "a\u2028b\x00\n(🎙", None]
        ),
        "language": choose.choice(["en", "fr", "zh"]),
        "dialect": choose.choice([None, None, {"label": "zh-yue"}]),
        "style": choose.choice([None, {"label": "song"}, {"label": "news"}]),
        "origin": choose.choice(["native", "native", "separated", "synthetic"]),
        "quality": {"dnsmos_ovr": choose.choice([None, 2.0, 3.5, 4.0])},
        "references": [{"clip_id": other, "similarity": 0.8} for other in others],
        "descriptions": described,
        "modes": modes,
        "stage_modes": [{"stage": stage, "modes": choose.sample(ALL, k=choose.randrange(0, 6))} for stage in (1, 2)],
    }


def write(folder: Path, clips: list[dict[str, Any]], seed: int = 0) -> Path:
    """A dataset of several parts; every ninth clip has no latents."""
    generator = torch.Generator().manual_seed(seed)
    for bucket in range(BUCKETS):
        mine = [clip for clip in clips if bucket_of(clip["session"], BUCKETS) == bucket]
        latents, name = [], f"latents/{bucket:04x}/latents.tar"
        with TarWriter(folder / name) as tar:
            for number, clip in enumerate(mine):
                if number % 9 == 8:
                    continue
                frames = PATCH * max(round(clip["duration"] * 25 / PATCH), 1)
                latent_LD = torch.randn(frames, 8, generator=generator)
                member = tar.add(f"{clip['clip_id']}.safetensors", latent_bytes(latent_LD))
                place = {"shard": name, "offset": member.offset, "size": member.size, "sha256": member.sha256}
                latents.append({"clip_id": clip["clip_id"], **place, "num_frames": frames, "latent_space": "a space"})
        write_index(part_path(folder, "clips.parquet", bucket, BUCKETS), CLIPS, mine)
        write_index(part_path(folder, "latents.parquet", bucket, BUCKETS), LATENTS, latents)
    (folder / "latents.json").write_text(json.dumps({"latent_space": "a space", "patch_size": PATCH}))
    return folder


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    choose = random.Random(7)
    clips = [labels(number, choose) for number in range(240)]
    folder = tmp_path_factory.mktemp("datasets")
    return {"main": write(folder / "main", clips[:180]), "other": write(folder / "other", clips[180:])}


def recipe(datasets: dict[str, Path], out: Path, *overrides: str, name: str = "tiny_stage2") -> Recipe:
    paths = [f"datasets.{dataset}.path={path}" for dataset, path in datasets.items()]
    return load_recipe(name, [*paths, f"init={CHECKPOINT}", f"run.out={out}", *overrides])


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    parts = sorted((folder / name).iterdir())
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def _is_good_enough(target: dict[str, Any], reference: dict[str, Any], rules: ReferencesConfig) -> bool:
    of_target, of_reference = (row["quality"]["dnsmos_ovr"] for row in (target, reference))
    if rules.min_quality is not None and (of_reference is None or of_reference < rules.min_quality):
        return False
    is_known = None not in (of_target, of_reference)
    return not (rules.cleaner_by is not None and is_known and of_reference > of_target + rules.cleaner_by)


def expected(settings: Recipe) -> tuple[list[dict[str, Any]], Counter[str]]:
    """What each clip is to be, and why others are left out: one clip after another, as the rules read in the docs."""
    rows: list[dict[str, Any]] = []
    for name, config in settings.datasets.items():
        places = {place["clip_id"]: place for place in table(config.path, "latents.parquet")}
        rows += [
            {**row, "dataset": name, "place": places.get(row["clip_id"])} for row in table(config.path, "clips.parquet")
        ]
    out: Counter[str] = Counter()
    clips = settings.clips
    for row in rows:
        row["spoken"] = (row["dialect"] or {}).get("label") or row["language"]
        row["kind"] = (row["style"] or {}).get("label") or ""
        stage = {entry["stage"]: entry["modes"] for entry in row["stage_modes"]}
        row["is_in"] = set(row["modes"] if settings.stage == "finetune" else stage.get(settings.stage, []))
        quality = row["quality"]["dnsmos_ovr"]
        rules = {
            "no_latents": row["place"] is not None,
            "too_short": row["duration"] >= clips.min_seconds,
            "too_long": row["duration"] <= clips.max_seconds,
            f"origin_{row['origin']}": row["origin"] in clips.origins,
            "language": clips.languages is None or bool({row["language"], row["spoken"]} & set(clips.languages)),
            "style": clips.styles is None or row["kind"] in clips.styles,
            "quality": clips.min_quality is None or (quality is not None and quality >= clips.min_quality),
            "teaches_nothing" if settings.stage == "finetune" else f"not_for_stage_{settings.stage}": row["is_in"],
        }
        broken = next((reason for reason, kept in rules.items() if not kept), None)
        row["held"] = False
        if broken is not None:
            out[broken] += 1
            row["is_in"] = set()
    entering = [row for row in rows if row["is_in"]]
    validation = settings.validation
    if validation is not None:
        share = validation.share or 0.0
        lowest = min(held_out_fraction(row["clip_id"]) for row in entering)
        for row in entering:
            named = {row["clip_id"], row["recording_id"]} & set(validation.clips)
            row["held"] = bool(named) if validation.clips else held_out_fraction(row["clip_id"]) <= max(share, lowest)
        out["held_out"] = sum(row["held"] for row in rows)
    numbers = {(row["dataset"], row["clip_id"]): number for number, row in enumerate(rows)}
    for row in rows:
        others = [numbers.get((row["dataset"], other["clip_id"])) for other in row["references"]]
        row["refs"] = [
            n
            for n in others
            if n is not None
            and rows[n]["place"] is not None
            and not rows[n]["held"]
            and _is_good_enough(row, rows[n], settings.references)
        ]
        if row["is_in"] & {"reference", "controllable"} and not row["refs"]:
            row["is_in"] -= {"reference", "controllable"}
            out["mode_without_reference"] += 1
        usable = [
            described
            for described in row["descriptions"]
            if clips.verified is None or all(v["verdict"] == "pass" for v in described["verdicts"] or [])
        ]
        shown: set[str] = set()
        for mode, shares in settings.mixture.descriptions.items():
            kinds = {axis for axis, share in shares.items() if share}
            if mode in row["is_in"] and not kinds & {described["axis"] for described in usable}:
                row["is_in"].discard(mode)
                out[f"mode_{mode}_without_description"] += 1
            shown |= kinds if mode in row["is_in"] else set()
        row["described"] = [
            (described["axis"], described["text"]) for described in usable if described["axis"] in shown
        ]
    return rows, +out


CASES: list[tuple[str, list[str]]] = [
    ("tiny_stage1", []),
    ("tiny_stage2", []),
    (
        "tiny_stage2",
        ["clips.verified={default: pass}", "clips.languages=[zh-yue, en]", "validation={every: 1, share: 0.1}"],
    ),
    ("tiny_stage2", ["clips.min_quality=3", "clips.styles=[song]"]),
    ("tiny_stage2", ["validation={every: 1, clips: [rs2, rs9, s11-0]}"]),
    ("tiny_finetune_full", ["clips.max_seconds=9", "validation={every: 1, share: 1.0e-9}"]),
]


@pytest.mark.parametrize(("name", "overrides"), CASES)
def test_the_columns_are_what_the_labels_say(
    datasets: dict[str, Path], tmp_path: Path, name: str, overrides: list[str]
) -> None:
    settings = recipe(datasets, tmp_path, *overrides, name=name)
    found, (rows, left_out) = read_corpus(settings), expected(settings)
    assert len(found) == len(rows) and found.left_out == left_out
    assert found.latent_space == "a space" and found.patch_size == PATCH
    texts = found.read_texts(range(len(rows)))
    for clip, row in enumerate(rows):
        place = row["place"]
        assert found.datasets[found.dataset[clip]].name == row["dataset"]
        assert found.languages[found.language[clip]] == row["spoken"] and found.styles[found.style[clip]] == row["kind"]
        assert found.seconds[clip] == np.float32(row["duration"])
        assert found.patches[clip] == (0 if place is None else place["num_frames"] // PATCH)
        modes = {mode for bit, mode in enumerate(MODES) if found.modes[clip] >> bit & 1}
        held = {mode for bit, mode in enumerate(MODES) if found.held_out[clip] >> bit & 1}
        assert (held, modes) == ((row["is_in"], set()) if row["held"] else (set(), row["is_in"]))
        text = plain_text(row["text"] or "")
        assert found.tokens[clip] == (len(TOKENIZER.encode(text)) if text and row["is_in"] else 0)
        assert (texts[clip].clip_id, texts[clip].text) == (row["clip_id"], row["text"] or "")
        if row["is_in"] & {"reference", "controllable"}:
            assert found.candidates(clip) == row["refs"]
        start, stop = found.description_starts[clip], found.description_starts[clip + 1]
        for number, axis in enumerate(DESCRIPTION_AXES):
            said = [text for own, text in row["described"] if own == axis]
            assert found.descriptions(clip, axis) == said
            counts = found.description_tokens[start:stop][found.description_axis[start:stop] == number]
            composed = [len(TOKENIZER.encode(compose_text(text, description=d))) if text else 0 for d in said]
            assert counts.tolist() == composed


def test_streams_are_the_clips_of_a_mode_by_length(datasets: dict[str, Path], tmp_path: Path) -> None:
    settings = recipe(datasets, tmp_path, "mixture.lengths={3.5: 0.3, 9: 0.3, 12: 0.4}", "mixture.styles={song: 0.2}")
    found, (rows, _) = read_corpus(settings), expected(settings)
    bounds = [3.5, 9.0, 12.0]
    by_name: dict[tuple[str, str, str, str, float], set[int]] = {}
    for clip, row in enumerate(rows):
        bound = next((bound for bound in bounds if row["duration"] <= bound), 0.0)
        style = "song" if row["kind"] == "song" else ""
        for mode in row["is_in"]:
            by_name.setdefault((mode, row["spoken"], row["dataset"], style, bound), set()).add(clip)
    streams = streams_of(found, settings)
    assert {(s.mode, s.language, s.dataset, s.style, s.up_to): set(s.clips) for s in streams} == by_name
    for stream in streams:
        clips = stream.clips[np.arange(len(stream.clips))]
        assert len(set(clips.tolist())) == len(clips) and int(stream.clips[0]) == clips[0]
        assert stream.seconds == pytest.approx(found.seconds[clips].sum())
        with pytest.raises(IndexError):
            stream.clips[len(stream.clips)]
    of_mode = {mode: sum(s.share_of_mode for s in streams if s.mode == mode) for mode in MODES}
    assert of_mode == pytest.approx(dict.fromkeys(MODES, 1.0))


def test_groups_are_the_same_in_small_chunks(
    datasets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million clips are grouped by the piece; here a piece is 16."""
    monkeypatch.setattr(index_groups, "LONG_SECONDS", (3, 5))
    lengths = "mixture.lengths={4: 1.0, 60: 1.0}"
    whole = read_corpus(recipe(datasets, tmp_path, lengths))
    monkeypatch.setattr(index_groups, "CHUNK", 16)
    by_piece = read_corpus(recipe(datasets, tmp_path, lengths))
    assert np.array_equal(whole.group_clips, by_piece.group_clips)
    assert {group.up_to for group in whole.groups} == {4.0, 60.0}
    for group, other in zip(whole.groups, by_piece.groups, strict=True):
        clips = whole.group_clips[group.start : group.stop].astype(int)
        seconds = whole.seconds[clips]
        assert (np.diff(clips) > 0).all(), "in the order of the index"
        assert ((seconds <= 4.0) == (group.up_to == 4.0)).all()
        over = [seconds[seconds > limit].sum() for limit in (3, 5)]
        assert group.seconds_over == pytest.approx(over) and group.seconds == pytest.approx(seconds.sum())
        assert whole.patches[group.longest] == whole.patches[clips].max() and group.longest in clips
        assert dataclasses.replace(other, seconds=0.0, seconds_over=()) == dataclasses.replace(
            group, seconds=0.0, seconds_over=()
        )
        assert other.seconds == pytest.approx(group.seconds)


def test_latents_are_read_many_at_once_as_one_by_one(datasets: dict[str, Path], tmp_path: Path) -> None:
    found = read_corpus(recipe(datasets, tmp_path))
    clips = [clip for clip in range(len(found)) if found.patches[clip]]
    random.Random(0).shuffle(clips)
    chosen = [*clips[:60], clips[0]]
    for clip, latent_PLD in zip(chosen, found.read_latents(chosen), strict=True):
        assert latent_PLD.shape == (found.patches[clip], PATCH, 8) and torch.equal(latent_PLD, found.read(clip))
    other = pickle.loads(pickle.dumps(found))
    assert len(pickle.dumps(found)) < 2000 and torch.equal(other.read(clips[5]), found.read(clips[5]))


@pytest.fixture
def changing(datasets: dict[str, Path], tmp_path: Path) -> Iterator[dict[str, Path]]:
    yield {name: Path(shutil.copytree(path, tmp_path / "data" / name)) for name, path in datasets.items()}


def test_an_index_is_that_of_its_recipe_and_its_datasets(changing: dict[str, Path], tmp_path: Path) -> None:
    out, place = tmp_path / "out", tmp_path / "index"
    first = read_corpus(recipe(changing, out), index="keep")
    assert first.folder.parent == out / "index"
    stamp = (first.folder / "index.json").stat().st_mtime_ns
    # What is no part of it: mixture, weights, another place of the same files.
    moved = {name: path.rename(tmp_path / f"moved-{name}") for name, path in changing.items()}
    same = recipe(moved, out, "mixture.temperature=3", "datasets.main.weight=2", "seed=4", "steps=9")
    assert read_corpus(same, index="keep").folder == first.folder
    assert (first.folder / "index.json").stat().st_mtime_ns == stamp
    first.folder.rename(place)
    explicit = f"run.index={place}"
    assert len(read_corpus(recipe(moved, out, explicit))) == len(first)
    with pytest.raises(UserError, match=r"run.index: .*clips.max_seconds: 12.0 -> 9.0.*voxmill index") as caught:
        read_corpus(recipe(moved, out, explicit, "clips.max_seconds=9"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"run.index: .*stage: 2 -> 1"):
        read_corpus(recipe(moved, out, explicit, name="tiny_stage1"))
    with pytest.raises(UserError, match=r"run.index: .*order"):
        turned = ", ".join(f"{name}: {{path: {path}}}" for name, path in reversed(moved.items()))
        read_corpus(recipe({}, out, explicit, f"datasets={{{turned}}}"))
    part = moved["main"] / "clips.parquet" / "0002.parquet"
    rows = pq.read_table(part)
    write_index(part, CLIPS, rows.to_pylist()[:-1])
    with pytest.raises(UserError, match=r"run.index: .*datasets.main.clips"):
        read_corpus(recipe(moved, out, explicit))
    again = read_corpus(recipe(moved, out), index="keep")
    assert len(again) == len(first) - 1 and [path.name for path in (out / "index").iterdir()] == [again.folder.name]
    with pytest.raises(UserError, match="holds no index; run: voxmill index"):
        read_corpus(recipe(moved, out, f"run.index={tmp_path / 'nowhere'}"))


@pytest.mark.parametrize("name", ["tokens.bin", "texts/texts.jsonl", "index.json"])
def test_a_torn_index_is_refused(datasets: dict[str, Path], tmp_path: Path, name: str) -> None:
    corpus = read_corpus(recipe(datasets, tmp_path), index="keep")
    content = (corpus.folder / name).read_bytes()
    (corpus.folder / name).write_bytes(content[:-3])
    with pytest.raises(UserError, match=name):
        Corpus(corpus.folder, corpus.datasets)


def test_a_name_that_is_no_clip_is_refused_and_leaves_nothing(datasets: dict[str, Path], tmp_path: Path) -> None:
    settings = recipe(datasets, tmp_path, "validation={every: 1, clips: [s1-1, nobody]}")
    with pytest.raises(UserError, match="validation.clips: nobody is no clip"):
        read_corpus(settings, index="keep")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("column", "value", "line"),
    [("sha256", "zz", "sha256 is none"), ("offset", -5, "offset is no place"), ("size", 2**32, "size is no place")],
)
def test_a_place_that_is_none_is_one_line(
    changing: dict[str, Path], tmp_path: Path, column: str, value: object, line: str
) -> None:
    part = changing["other"] / "latents.parquet" / "0002.parquet"
    rows = pq.read_table(part).to_pylist()
    write_index(part, LATENTS, [*rows[:-1], {**rows[-1], column: value}])
    with pytest.raises(UserError, match=f"datasets.other: latents.parquet: a clip's {line}.*voxmill encode"):
        read_corpus(recipe(changing, tmp_path / "out"))


def test_an_index_that_the_first_rank_made_elsewhere_is_missed(
    datasets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "SEEN_AFTER", 0.0)
    with pytest.raises(UserError, match="run.out: .*is not on this machine; name a run.out that all ranks see"):
        read_corpus(recipe(datasets, tmp_path), index="expect")


@pytest.mark.slow
def test_long_descriptions_of_many_clips_have_no_limit(tmp_path: Path) -> None:
    """260,000 clips whose descriptions are 2.5 GB, more than one Arrow array of texts holds [streaming #662]."""
    count, long = 260_000, "a voice " * 1200
    clip = {"session": "s", "duration": 3.0, "text": "Hello.", "language": "en", "origin": "native"}
    described = {"descriptions": [{"axis": "design", "text": long}], "stage_modes": [{"stage": 2, "modes": ["basic"]}]}
    one = pa.Table.from_pylist([{**clip, **described}], schema=CLIPS)
    with pq.ParquetWriter(tmp_path / "clips.parquet", CLIPS, compression="zstd") as writer:
        for first in range(0, count, 20_000):
            rows = pa.concat_tables([one] * 20_000).combine_chunks()
            names = pa.array([f"c{number}" for number in range(first, first + 20_000)])
            writer.write_table(rows.set_column(rows.schema.get_field_index("clip_id"), CLIPS.field("clip_id"), names))
    places = {"shard": "latents/a.tar", "offset": 512, "size": 9, "sha256": "0" * 64, "num_frames": 76}
    latents = [{"clip_id": f"c{number}", "latent_space": "a space", **places} for number in range(count)]
    write_index(tmp_path / "latents.parquet", LATENTS, latents)
    (tmp_path / "latents.json").write_text(json.dumps({"latent_space": "a space", "patch_size": PATCH}))
    found = read_corpus(recipe({"main": tmp_path}, tmp_path / "out", "mixture.modes={basic: 1}"))
    assert (
        len(found)
        == count
        == len(streams_of(found, recipe({"main": tmp_path}, tmp_path, "mixture.modes={basic: 1}"))[0].clips)
    )


def test_the_command_makes_an_index_once(encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"init={CHECKPOINT}", f"datasets.main.path={encoded}", f"run.out={tmp_path / 'run'}"]
    arguments = ["index", "tiny_stage2", "-o", str(tmp_path / "idx"), *settings]
    assert run(arguments) == 0
    output = capsys.readouterr().out
    assert "16 clips, of which 16 are trained on" in output and output.splitlines()[-1] == str(tmp_path / "idx")
    assert run(arguments) == 0 and "is up to date" in capsys.readouterr().out
    assert run([*arguments, "clips.max_seconds=9"]) == 0
    assert "is made again: clips.max_seconds: 12.0 -> 9.0" in capsys.readouterr().out
    checked = ["train", "--check", "tiny_stage2", *settings, f"run.index={tmp_path / 'idx'}"]
    assert run([*checked, "clips.max_seconds=9"]) == 0
    assert run(checked) == 2 and "clips.max_seconds: 9.0 -> 12.0" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    assert run(["index", "tiny_stage2", "-o", str(tmp_path / "full"), *settings]) == 2
    assert "holds other files" in capsys.readouterr().err and (tmp_path / "full" / "thesis.txt").exists()


def test_latents_behind_a_link_are_read_where_the_recipe_says_so(
    encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`latents/` on another disk: said by `--check` with the key, not at step 0."""
    out = Path(shutil.copytree(encoded, tmp_path / "dataset"))
    (out / "latents").rename(tmp_path / "disk")
    (out / "latents").symlink_to(tmp_path / "disk")
    arguments = ["train", "--check", "tiny_stage2", f"init={CHECKPOINT}", f"datasets.main.path={out}"]
    assert run(arguments) == 2
    line = capsys.readouterr().err
    assert f"{out / 'latents'} leads out of the dataset" in line and "datasets.main.follow_symlinks=true" in line
    assert run([*arguments, "datasets.main.follow_symlinks=true"]) == 0
    linked = recipe({"main": out}, tmp_path, "datasets.main.follow_symlinks=true")
    assert torch.equal(read_corpus(linked).read(3), read_corpus(recipe({"main": encoded}, tmp_path)).read(3))
