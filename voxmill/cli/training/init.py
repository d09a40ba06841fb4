"""`voxmill init`: the checkpoint that stage 1 starts from."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from voxmill.cli.settings import check_folder, folder_path, path_text
from voxmill.core.errors import UserError, command

VOCABULARY = 32768


@command("voxmill init")
def init(
    out: Annotated[Path, typer.Argument(metavar="OUT", parser=folder_path, help="folder for the checkpoint, new")],
    vae: Annotated[
        str, typer.Option(metavar="CODEC", parser=path_text, help="checkpoint with a trained AudioVAE (`train-vae`)")
    ],
    language_model: Annotated[
        str | None, typer.Option(metavar="DIR", help="MiniCPM-4 or Llama in the layout of Hugging Face, for TSLM")
    ] = None,
    preset: Annotated[str, typer.Option(help="size of what is fresh: tiny, small or voxcpm2")] = "voxcpm2",
    tokenizer: Annotated[
        str | None, typer.Option(metavar="DIR", help="folder with a tokenizer.json; default: the language model's")
    ] = None,
    texts: Annotated[
        str | None, typer.Option(metavar="DATASET", help="learn a tokenizer from a finished dataset's texts")
    ] = None,
    vocabulary: Annotated[int, typer.Option(help="ids of a tokenizer that is learnt, at most")] = VOCABULARY,
    seed: Annotated[int, typer.Option(help="of fresh weights")] = 0,
    dtype: Annotated[
        Literal["bfloat16", "float32"] | None, typer.Option(help="of the model's tensors; default: the preset's")
    ] = None,
) -> None:
    """Makes the checkpoint that stage 1 starts from.

    The codec comes from --vae and stays as it is. TSLM starts from a text language model, whose scales (muP) are folded
    into its weights, or fresh; everything else is fresh. The tokenizer is the one of --tokenizer, of the language
    model, or of the codec's folder, or is learnt from --texts. Then: voxmill train stage1 init=OUT.

    \b
    Examples:
      voxmill init first/ --vae vae/checkpoint-00400000 --language-model MiniCPM4-0.5B/
      voxmill init first/ --vae vae/checkpoint-00400000 --preset small --texts dataset/
    """
    from model.first_checkpoint import write_first_checkpoint
    from model.language_model import open_language_model
    from model.presets import preset as preset_of
    from model.sequence.tokenizer_training import train_tokenizer

    check_folder(out)
    if texts is not None and tokenizer is not None:
        raise UserError("--texts learns a tokenizer and --tokenizer names one; leave one of them out")
    if texts is not None and language_model is not None:
        raise UserError("--texts gives other ids than the language model was trained with; leave one of them out")
    size = preset_of(preset)
    opened = None if language_model is None else open_language_model(language_model)
    with tempfile.TemporaryDirectory(prefix="voxmill-tokenizer-") as learnt:
        if texts is not None:
            train_tokenizer(_texts_of(texts), Path(learnt), size=vocabulary)
        source = learnt if texts is not None else tokenizer or language_model or vae
        made = write_first_checkpoint(
            out, size, codec=vae, tokenizer_from=source, language_model=opened, seed=seed, dtype=dtype
        )
    print(f"tokenizer: {f'learnt from {texts}' if texts is not None else source}")
    for name, count in made.parameters.items():
        origin = {"audio_vae": vae, "base_lm": language_model}.get(name) or f"fresh, seed {seed}"
        print(f"{name:>20} {count:>13,} parameters  {origin}")
    print(f"{out}: {sum(made.parameters.values()):,} parameters in {made.config.dtype}")


def _texts_of(dataset: str) -> Iterator[str]:
    """What training reads as text: transcripts, and descriptions in their parentheses."""
    from voxmill.data.dataset import Dataset

    for table in Dataset.open(dataset).tables(("text", "descriptions")):
        yield from filter(None, table["text"].to_pylist())
        for descriptions in table["descriptions"].to_pylist():
            for description in descriptions or ():
                yield f"({description['text']})"
