"""Configuration of `evaluate`, by parts that each declare their own."""

from pydantic import Field

from evaluation.metrics.instruction_judge import JudgeConfig
from evaluation.metrics.scoring import ScoringConfig
from voxmill.core.config import Config


class TrackingConfig(Config):
    """Where runs are logged."""

    enabled: bool = True
    """Log runs to MLflow."""
    uri: str = ""
    """MLflow server or database; empty: MLFLOW_TRACKING_URI, or OUT/mlflow.db."""
    experiment: str = "voxmill"
    """Name of the MLflow experiment."""
    timeout_seconds: int = Field(20, ge=1)
    """Seconds after which a server that does not answer is left out."""


class EvaluateConfig(Config):
    """What is spoken, scored and logged, and by how many workers."""

    renamed = {"speakers": "synthesis_workers"}

    scoring: ScoringConfig = ScoringConfig()
    judge: JudgeConfig = JudgeConfig()
    tracking: TrackingConfig = TrackingConfig()
    seeds: list[int] = Field(default=[0], min_length=1)
    """A system that takes seeds speaks every utterance once with each."""
    limit: int | None = Field(None, ge=1)
    """Only the first utterances of each group, this many; null takes all."""
    workers: int | None = Field(None, ge=0)
    """Ray actors that score; 0 scores in this process; null: 0, or in a Ray job all its CPUs."""
    synthesis_workers: int = Field(2, ge=1)
    """Utterances that a command or an endpoint speaks at once."""
    device: str = "auto"
    """Where checkpoints run: auto, cpu or cuda."""
    progress: bool = True
    """Show progress bars."""
