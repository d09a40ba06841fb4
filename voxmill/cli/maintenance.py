"""`voxmill compact` and `voxmill vacuum`: what keeps a dataset tidy that grows in increments."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from voxmill.cli.settings import folder_path
from voxmill.core.errors import PROGRESS_SAVED, UserError, command

Out = Annotated[Path, typer.Argument(metavar="OUT", parser=folder_path, help="a finished dataset")]


@command("voxmill compact", resume_hint=PROGRESS_SAVED)
def compact(
    out: Out,
    shard_megabytes: Annotated[
        float | None, typer.Option(help="size of a shard, in 1e6 bytes; by default write.shard_megabytes of the run")
    ] = None,
) -> None:
    """Merges the small shards that increments leave into few of the usual size.

    A dataset that grew in increments may have many small shards. This makes them whole again, bucket by bucket: shards
    below half the usual size are merged with each other, sessions whole, in
    the index's order. Clips keep their bytes and rows their order, so no latents are encoded again. New shards come
    first, then the parts of clips.parquet, dataset.json last; the old shards stay until `voxmill vacuum`. The same
    command resumes after a crash.

    \b
    Examples:
      voxmill annotate more/ dataset/
      voxmill compact dataset/
      voxmill vacuum dataset/
      voxmill compact s3://bucket/dataset --shard-megabytes 512
    """
    from pipelines.compact import compact as run
    from pipelines.compact import require_snapshot, usual_megabytes
    from pipelines.units.workspace import Workspace

    if shard_megabytes is not None and not shard_megabytes > 0:
        raise UserError(f"--shard-megabytes {shard_megabytes:g}: must be above 0")
    # Before anything is written: a folder that is no dataset stays as it is.
    require_snapshot(out)
    with Workspace(out).hold(), Workspace(out, "latents").hold():
        done = run(out, usual_megabytes(out) if shard_megabytes is None else shard_megabytes)
    if done.merged:
        print(f"merged {done.merged} shards of {done.size / 1e6:.1f} MB into {done.written}; now: voxmill vacuum {out}")
    else:
        print("nothing to merge")


@command("voxmill vacuum", resume_hint=PROGRESS_SAVED)
def vacuum(
    out: Out,
    keep: Annotated[int, typer.Option(metavar="N", min=0, help="states before the present one whose shards stay")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list what would be removed, remove nothing")] = False,
) -> None:
    """Removes shards, latents, units, labels and norms that a dataset no longer names, and temporary files.

    An increment, a changed threshold, `voxmill compact` and `voxmill encode` write new files beside the old ones, which
    a training run may still read. Shards that the last N states of dataset.json name stay (--keep, 1 by default); with
    --keep 0 only what the dataset is now made of. Latents have no such history: end training runs that began before
    the last `voxmill encode`. It refuses while a job writes to OUT, and touches nothing that voxmill did not make.

    \b
    Examples:
      voxmill vacuum dataset/ --dry-run
      voxmill vacuum dataset/ --keep 0
      voxmill vacuum s3://bucket/dataset
    """
    from pipelines.vacuum import KINDS
    from pipelines.vacuum import vacuum as run

    found = run(out, keep=keep, dry_run=dry_run)
    if dry_run:
        for one in found:
            print(one.file.name)
    counts, sizes = Counter(one.kind for one in found), Counter[str]()
    for one in found:
        sizes[one.kind] += one.file.size
    for kind in KINDS:
        if counts[kind]:
            print(f"{kind}: {counts[kind]} files, {sizes[kind] / 1e6:.1f} MB")
    print(f"{'would remove' if dry_run else 'removed'} {len(found)} files, {sizes.total() / 1e6:.1f} MB")
