"""The curriculum as data: one YAML file a stage (report 3.5), or a fine-tuning. Invalid stages are refused here.

A recipe is named by its path, or by its name where it comes with voxmill (`stage1`, `tiny_stage1`).
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from cluster.deepspeed.files import Communication
from model.lora import LoRAConfig
from training.curriculum.sample_draws import Curve, share_at
from training.run.recipes import find_recipe
from voxmill.core.config import Config, StoredPath, load_config
from voxmill.core.errors import UserError
from voxmill.core.storage import is_remote
from voxmill.core.tracking import wrong_uri
from voxmill.data.description_kinds import DEFAULT_SHARES, KindShares
from voxmill.data.records import Mode, Origin
from voxmill.data.verified import VerifiedRule

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "speech"


class DatasetConfig(Config):
    """A finished dataset with latents. `weight` multiplies its hours wherever shares are by hours.

    A `role` besides `train` says that the checkpoint of `init` knows these data: what it forgets of them is measured.
    """

    path: StoredPath
    """OUT of a finished `voxmill annotate` with latents; may be a URI."""
    weight: float = Field(1.0, gt=0)
    """Factor on its hours wherever shares are by hours."""
    follow_symlinks: bool = False
    """Its latents may lie behind symbolic links that lead out of its folder, such as `latents/` on another disk."""
    share: float | None = Field(None, gt=0, lt=1)
    """Its share of the target seconds of every mode that it has clips for; null: what the others leave, by hours."""
    role: Literal["train", "replay", "validate"] = "train"
    """`replay` is trained again and watched for forgetting; `validate` is watched alone: all its clips are held out."""


class ClipsConfig(Config):
    """Which clips enter, besides the stages in their labels; lengths in seconds. None switches a rule off."""

    renamed: ClassVar[dict[str, str]] = {"verified_only": "verified, as {default: pass}"}

    min_seconds: float = Field(0.3, ge=0)
    """Shortest clip, in seconds."""
    max_seconds: float = Field(60.0, gt=0)
    """Longest clip, in seconds."""
    origins: tuple[Origin, ...] = ("native", "separated")
    """Origins that enter: native, separated, synthetic."""
    languages: tuple[str, ...] | None = None
    """Codes of the languages or dialects that enter; null takes all."""
    styles: tuple[str, ...] | None = None
    """Styles that enter, such as song; null takes all, also clips without one."""
    min_quality: float | None = Field(None)
    """Lowest DNSMOS overall (1..5); null for no floor."""
    verified: VerifiedRule | None = None
    """Verdicts on descriptions that enter, by attribute, such as {default: pass, accent: unjudged_ok}; null: all."""


class MixtureConfig(Config):
    """Shares in seconds of target audio.

    `temperature`: a language's share within a mode grows with its hours to the power of 1 / temperature: 1 as there is,
    higher flatter; `balanced_languages` gives every language the same.
    """

    modes: dict[Mode, Curve]
    """Share of each mode in seconds of target audio: a number, or values over the course of the stage."""
    temperature: float = Field(1.0, ge=1)
    """A language's share grows with its hours to the power of 1 / temperature: 1 as there is, higher is flatter."""
    balanced_languages: bool = False
    """Every language gets the same share."""
    lengths: dict[float, Annotated[float, Field(gt=0)]] = {}
    """Shares of clips of up to so many seconds and above the length before, within each mode; {} as there are."""
    styles: dict[str, Annotated[float, Field(gt=0, le=1)]] = {}
    """Shares of clips of a style, such as {song: 0.05}, within each mode; all others get the rest. {} as there are."""
    descriptions: KindShares = DEFAULT_SHARES
    """What these modes show, by shares: descriptions of the voice (design), the delivery (style) or both; no others."""


class ReferencesConfig(Config):
    """Which of a clip's references are drawn, each time anew. `clips` binds the clips that are spoken, not these."""

    cross_lingual: float | None = Field(None, ge=0, le=1)
    """Share of those in another language where a clip has both kinds; null: as there are."""
    min_quality: float | None = None
    """Lowest DNSMOS overall (1..5) of a reference; null for no floor besides the dataset's own."""
    cleaner_by: float | None = Field(None, ge=0)
    """A reference of more DNSMOS than its clip's and this is not used: it would teach noise; null: any."""


class PackingConfig(Config):
    """`positions`: of a row, which is a micro-batch; `window`: samples that wait to be fitted."""

    positions: int = Field(8192, gt=0)
    """Positions of a packed row, which is a micro-batch."""
    window: int = Field(1024, ge=1)
    """Samples that wait to be fitted into rows."""


class OptimizerConfig(Config):
    """AdamW with linear warm-up, then cosine decay to `final` times the learning rate.

    `ema`: decay of a moving average of the weights, which is then validated and exported.
    """

    learning_rate: float = Field(gt=0)
    """Highest learning rate."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0."""
    final: float = Field(0.0, ge=0, le=1)
    """The cosine decay ends at this share of `learning_rate`."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    eps: float = 1e-8
    """AdamW's term against division by zero."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's weight decay."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the averaged weights, which are then validated and exported; null keeps none."""


class LossConfig(Config):
    """Weights of the two losses whose sum is minimised; 1 and 1 as released."""

    diffusion: float = Field(1.0, ge=0)
    """Weight of the flow-matching error, a mean over target frames."""
    stop: float = Field(1.0, ge=0)
    """Weight of the stop predictor's cross entropy, a mean over target patches."""

    @model_validator(mode="after")
    def _not_nothing(self) -> "LossConfig":
        if not self.diffusion + self.stop:
            raise ValueError("diffusion and stop are both 0; nothing would be trained")
        return self


class EngineConfig(Config):
    """DeepSpeed, precision, and what trades time for memory.

    `activation_checkpointing`: activations of a layer are computed again in the backward pass instead of kept. No key
    but `zero`, `offload` and `dtype` changes a result beyond the rounding of sums, and by default none does.
    """

    zero: Literal[0, 1, 2, 3] = 2
    """DeepSpeed's ZeRO stage."""
    offload: bool = False
    """Keep the optimizer's state in CPU memory."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Number format of weights and activations."""
    activation_checkpointing: bool | Annotated[float, Field(ge=0, le=1)] = False
    """Compute activations again in the backward pass instead of keeping them: of all layers, or of a share (0..1)."""
    compile: bool = False
    """Compile the layers with torch.compile, which takes minutes at the start; ZeRO 0 to 2."""
    overlap_comm: bool | None = None
    """Reduce gradients during the backward pass; null: under ZeRO 3, and under 1 and 2 with more than 8 ranks."""
    bucket_size: int | None = Field(None, ge=1_000_000)
    """Gradients that are reduced at once; null: as many as `cluster/deepspeed/` says."""
    hpz: int | None = Field(None, ge=2)
    """ZeRO 3: ranks of one machine, which hold a second copy of the weights among them (ZeRO++ hpZ); null: none."""
    gpu_memory: float | None = Field(None, gt=0)
    """1e9 bytes of one GPU, which `--check` and the run hold the recipe against; null: that of the GPU here."""

    @property
    def communication(self) -> Communication:
        """What is set over the file of the stage in `cluster/deepspeed/`."""
        return Communication(overlap_comm=self.overlap_comm, bucket_size=self.bucket_size, hpz=self.hpz)

    @model_validator(mode="after")
    def _possible(self) -> "EngineConfig":
        if self.hpz is not None and self.zero != 3:
            raise ValueError(f"hpz = {self.hpz} divides the weights, which zero = {self.zero} does not; set zero to 3")
        if self.compile and self.zero == 3:
            raise ValueError(
                "compile = true, but zero = 3 gathers weights by hooks that torch.compile cannot follow; set zero to 2"
            )
        if self.zero == 0 and (self.overlap_comm or self.bucket_size is not None):
            raise ValueError("zero = 0 has no buckets: overlap_comm and bucket_size have no effect; drop them")
        return self


class FeedConfig(Config):
    """How batches come to a step; no key here changes a result."""

    ahead: int = Field(2, ge=1)
    """Steps whose batches are ready before they are asked for."""
    threads: int = Field(4, ge=1)
    """Threads of a rank that read latents."""
    cache: StoredPath | None = None
    """Folder on a disk of each machine for copies of latent shards in object storage; null reads them by range."""
    cache_gigabytes: float = Field(200.0, gt=0)
    """1e9 bytes of copies at most; those that were read longest ago make room."""


class HealthConfig(Config):
    """When a row is bad, besides a loss that is not finite, and how many bad steps in a row restore a checkpoint."""

    spike: float | None = Field(20.0, gt=1)
    """A row is bad if its loss exceeds the median of the last steps this many times; null: never."""
    roll_back_after: int = Field(3, ge=1)
    """Bad steps in a row after which the run returns to its last checkpoint."""
    dead_after: int | None = Field(200, ge=1)
    """Steps in a row without learning after which the run ends with status 1; null: it goes on."""
    dead_loss: float = Field(3.0, gt=1)
    """How many times the lowest median of `dead_after` steps the median of that many has to be."""


class ValidationConfig(Config):
    """What is held out, which never enters training, and when and how the weights are tried on it.

    Held out are either a `share` of the clips (one at least), chosen by a hash of their id, or `clips`, named by clip
    or recording id. `count`: of them at most in each mode. `listen`: clips generated each time, none longer than
    `max_seconds`.
    """

    every: int = Field(ge=1)
    """Steps between two validations."""
    share: float | None = Field(None, gt=0, lt=1)
    """Share of the clips that is held out (0..1), chosen by a hash of their id."""
    clips: tuple[str, ...] = ()
    """Held-out clips, by clip or recording id, instead of `share`."""
    count: int = Field(32, ge=1)
    """Held-out clips validated in each mode, at most."""
    listen: int = Field(2, ge=0)
    """Held-out clips spoken at each validation."""
    max_seconds: float = Field(10.0, gt=0)
    """Longest clip that is spoken, in seconds."""

    @model_validator(mode="after")
    def _one_way(self) -> "ValidationConfig":
        if (self.share is None) == (not self.clips):
            raise ValueError("set either validation.share or validation.clips, to choose the held-out clips")
        return self


class RunConfig(Config):
    """Where a run lies, when it is saved and where it reports; no key here changes the result of training."""

    out: StoredPath
    """Folder for checkpoints, metrics and the export; may be a URI."""
    index: StoredPath | None = None
    """What `voxmill index` wrote for this recipe; may be a URI. null: the run makes one in `run.out`."""
    save_every: int = Field(1000, ge=1)
    """Steps between two checkpoints."""
    keep: int = Field(3, ge=1)
    """Newest sound checkpoints that stay, and the very newest; those saved among bad steps are not sound."""
    keep_best: int = Field(0, ge=0)
    """Checkpoints of the lowest validation loss that stay besides."""
    hang_seconds: float | None = Field(900, gt=0)
    """Seconds without a finished step after which the run ends itself; null: never."""
    export: Literal["last", "best"] = Field("last")
    """Which weights the run ends with."""
    merged: bool = Field(False)
    """LoRA: also export a whole checkpoint, with the adapters merged into its weights."""
    tracking_uri: str | None = Field(None)
    """MLflow server or database; null: MLFLOW_TRACKING_URI, or a database in `run.out`; `none`: metrics.jsonl only."""
    experiment: str = "voxcpm2"
    """Name of the MLflow experiment."""
    peak_tflops: float | None = Field(None, gt=0)
    """Peak TFLOP/s of one device, for MFU; null: known for common GPUs in bf16."""


class Recipe(Config):
    """One stage. `rows`: packed rows a step over all ranks together, so the number of ranks changes no result.

    `stage`: 1 to 3 of the curriculum, or finetune, which takes what the clips can teach whatever stage they suit.
    `lora`: adapters that are trained instead of the weights.
    """

    stage: Literal[1, 2, 3, "finetune"]
    """Stage 1 to 3 of the curriculum, or finetune, which takes clips whatever stage they suit."""
    init: StoredPath
    """Checkpoint folder whose weights training starts from; may be a URI."""
    datasets: dict[str, DatasetConfig]
    """Finished datasets with latents, by name."""
    max_positions: int = Field(gt=0)
    """Longest sample, in positions."""
    steps: int = Field(gt=0)
    """Steps of the whole run."""
    rows: int = Field(gt=0)
    """Packed rows of a step over all ranks together, so that the number of ranks changes no result."""
    seed: int = Field(0, ge=0)
    """Seed of the order of samples, of noise and of dropout."""
    clips: ClipsConfig = ClipsConfig()
    mixture: MixtureConfig
    references: ReferencesConfig = ReferencesConfig()
    packing: PackingConfig = PackingConfig()
    optimizer: OptimizerConfig
    lora: LoRAConfig | None = None
    """Adapters that are trained instead of the weights; null trains the weights."""
    loss: LossConfig = LossConfig()
    engine: EngineConfig = EngineConfig()
    feed: FeedConfig = FeedConfig()
    health: HealthConfig = HealthConfig()
    validation: ValidationConfig | None = None
    run: RunConfig


LIMITS: dict[int | str, tuple[float, float, int]] = {
    1: (0.0, 60.0, 4096),
    2: (0.0, 180.0, 8192),
    3: (2.0, 300.0, 8192),
    "finetune": (0.0, 300.0, 8192),
}
"""(least seconds, most seconds, most positions) by stage; a fine-tuning's are the longest of the stages."""


def load_recipe(name: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe and holds it against the rules of its stage.

    Raises:
        UserError: unknown key or wrong value, or something that the stage may not hold; names the recipe and the key.
    """
    path = find_recipe(name, RECIPES)
    recipe = load_config(Recipe, path, overrides)
    wrong = _against_stage(recipe)
    if wrong:
        raise UserError(f"{path}: {wrong}")
    return recipe


def _against_stage(recipe: Recipe) -> str:
    shortest, longest, positions = LIMITS[recipe.stage]
    clips, stage = recipe.clips, f"stage {recipe.stage}"
    if not recipe.datasets:
        return "datasets is empty; name one, such as datasets.main.path=dataset/"
    wrong = _against_datasets(recipe)
    if wrong:
        return wrong
    if clips.max_seconds > longest or clips.min_seconds < shortest:
        return (
            f"clips of {clips.min_seconds} to {clips.max_seconds} s, but {stage} takes {shortest:.0f} to "
            f"{longest:.0f} s; set clips.min_seconds and clips.max_seconds"
        )
    if recipe.max_positions > positions:
        return f"max_positions = {recipe.max_positions}, but {stage} takes {positions} at most"
    if recipe.max_positions > recipe.packing.positions:
        return (
            f"packing.positions = {recipe.packing.positions} is less than max_positions = {recipe.max_positions}: "
            "the longest sample would fit into no row"
        )
    if recipe.stage in (1, 3) and "synthetic" in clips.origins:
        return f"clips.origins has synthetic, which {stage} may not train on; leave it to stage 2"
    if recipe.stage == 3 and set(clips.origins) != {"native"}:
        return f"clips.origins = {list(clips.origins)}, but stage 3 takes native recordings only"
    extra = set(recipe.mixture.modes) - {"basic", "continuation"}
    if recipe.stage == 1 and extra:
        return f"mixture.modes has {', '.join(sorted(extra))}, but stage 1 trains basic and continuation alone"
    if recipe.lora is not None and recipe.stage != "finetune":
        return f"lora is set, but {stage} trains all weights; take a recipe with stage: finetune"
    if recipe.run.keep_best and recipe.validation is None:
        return "run.keep_best: nothing is validated; add validation={every: 500, share: 0.002}"
    if recipe.run.export == "best" and not recipe.run.keep_best:
        return "run.export is best, but run.keep_best = 0 keeps none; set it to 1 or more"
    if recipe.run.merged and recipe.lora is None:
        return "run.merged is set, but there is no lora to merge; drop it"
    return _against_sense(recipe)


def _against_datasets(recipe: Recipe) -> str:
    trained = {name: config for name, config in recipe.datasets.items() if config.role != "validate"}
    if not trained:
        return "datasets: all have role validate; name one of role train"
    for name in recipe.datasets.keys() - trained.keys():
        if recipe.datasets[name].share is not None:
            return f"datasets.{name}.share is set, but with role validate nothing of it is drawn; drop either"
        if recipe.validation is None:
            return (
                f"datasets.{name}.role is validate, but nothing is validated; "
                "add validation={every: 500, share: 0.01}"
            )
    shares = [config.share for config in trained.values() if config.share is not None]
    if sum(shares) > 1 + 1e-9 or (len(shares) < len(trained) and sum(shares) > 1 - 1e-9):
        return f"datasets: shares add up to {sum(shares):g}; they may not to more than 1, nor leave others nothing"
    return ""


def _against_sense(recipe: Recipe) -> str:
    if recipe.feed.cache is not None and is_remote(recipe.feed.cache):
        return f"feed.cache = {recipe.feed.cache} is in object storage; name a folder on a disk of each machine"
    if wrong := wrong_uri(recipe.run.tracking_uri):
        return f"run.tracking_uri: {wrong}"
    longest = max(recipe.mixture.lengths, default=recipe.clips.max_seconds)
    if longest < recipe.clips.max_seconds:
        return (
            f"mixture.lengths ends at {longest:g} s, but clips.max_seconds = {recipe.clips.max_seconds:g}; "
            "add the share of what is longer, or lower clips.max_seconds"
        )
    if sum(recipe.mixture.styles.values()) > 1 + 1e-9:
        return f"mixture.styles adds up to {sum(recipe.mixture.styles.values()):g}; the shares may not to more than 1"
    if recipe.clips.min_seconds >= recipe.clips.max_seconds:
        return f"clips.min_seconds = {recipe.clips.min_seconds} is not below clips.max_seconds"
    if recipe.optimizer.warmup_steps >= recipe.steps:
        return f"optimizer.warmup_steps = {recipe.optimizer.warmup_steps} is not below steps = {recipe.steps}"
    for mode, curve in recipe.mixture.modes.items():
        points = curve if isinstance(curve, tuple) else ((0.0, float(curve)),)
        places = [place for place, _ in points]
        if not points or places != sorted(set(places)) or not (places[0] >= 0 and places[-1] <= 1):
            return f"mixture.modes.{mode}: progress must rise from point to point within 0 to 1, found {places}"
        if min(value for _, value in points) < 0:
            return f"mixture.modes.{mode}: shares may not be negative"
    bends = {0.0, 1.0} | {p for curve in recipe.mixture.modes.values() if isinstance(curve, tuple) for p, _ in curve}
    for place in sorted(bends):
        if not sum(share_at(curve, place) for curve in recipe.mixture.modes.values()) > 0:
            return f"mixture.modes: all shares are 0 at progress {place}"
    return ""
