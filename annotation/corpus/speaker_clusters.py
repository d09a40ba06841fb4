"""Who is who: clips grouped by voice, and how well an encoder tells voices apart.

Average-linkage clustering of cosine distances, first within a session, then, if asked for, of the sessions' clusters.
The threshold is the encoder's own equal-error point (`equal_error`), which `benchmarks/speakers.py` measures. Cost is
quadratic in `block`, not in the session: a longer session is clustered block by block and the blocks' centres merged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxmill.core.config import Config

# Equal-error cosine of the embedded CAM++ on the sample voices (benchmarks/speakers.py), rounded.
CAMPPLUS_EQUAL_ERROR = 0.40


class ClusterConfig(Config):
    """`threshold` is the cosine at which two voices count as one: the encoder's equal-error point.

    `across_sessions` also joins clusters of different sessions, which needs a stricter cosine, because the number of
    pairs of strangers grows with the square of the sessions: `threshold_across`.
    """

    threshold: float = CAMPPLUS_EQUAL_ERROR
    """Cosine from which two voices of a session count as one speaker."""
    across_sessions: bool = False
    """Also join clusters of different sessions."""
    threshold_across: float = 0.55
    """Cosine from which clusters of different sessions are joined."""
    block: int = 2000
    """Rows of the similarity matrix computed at a time; bounds memory, changes nothing else."""


@dataclass(frozen=True)
class EqualError:
    """How well scores tell same from different: the rates at every threshold, and where they meet.

    `threshold`, `false_accept`, `false_reject`: float [thresholds], ascending thresholds; a pair is accepted from the
    threshold on. `eer` in 0..1 and `at`, its threshold.
    """

    eer: float
    at: float
    threshold: np.ndarray
    false_accept: np.ndarray
    false_reject: np.ndarray

    def rates_at(self, threshold: float) -> tuple[float, float]:
        """(false accepts, false rejects) of a threshold, each 0..1."""
        index = int(np.searchsorted(self.threshold, threshold, side="left"))
        if index == len(self.threshold):
            return 0.0, 1.0
        return float(self.false_accept[index]), float(self.false_reject[index])


def equal_error(same: np.ndarray, different: np.ndarray) -> EqualError:
    """The equal-error point of scores of same-speaker and of different-speaker pairs.

    Raises:
        ValueError: one of the two is empty.
    """
    if not len(same) or not len(different):
        raise ValueError("an equal-error rate needs pairs of the same speaker and pairs of different speakers")
    same, different = np.sort(same), np.sort(different)
    threshold = np.unique(np.concatenate([same, different]))
    reject = np.searchsorted(same, threshold, side="left") / len(same)
    accept = 1.0 - np.searchsorted(different, threshold, side="left") / len(different)
    # Falling minus rising rate changes sign once; between the two sides the crossing is linear. With all pairs kept
    # apart the rates meet at zero over a gap, of which the middle is the fairest threshold.
    if same[0] > different[-1]:
        return EqualError(0.0, float((same[0] + different[-1]) / 2), threshold, accept, reject)
    gap = accept - reject
    right = int(np.argmax(gap <= 0)) if (gap <= 0).any() else len(gap) - 1
    left = max(right - 1, 0)
    share = 0.0 if gap[left] == gap[right] else float(gap[left] / (gap[left] - gap[right]))
    eer = accept[left] + share * (accept[right] - accept[left])
    at = threshold[left] + share * (threshold[right] - threshold[left])
    return EqualError(float(eer), float(at), threshold, accept, reject)


def pair_scores(embeddings: np.ndarray, speakers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of all pairs of unit vectors [N,D]: (of one speaker, of two speakers)."""
    scores = embeddings @ embeddings.T
    names = np.asarray(speakers)
    one, two = np.triu_indices(len(names), k=1)
    is_same = names[one] == names[two]
    return scores[one[is_same], two[is_same]], scores[one[~is_same], two[~is_same]]


def bootstrap_equal_error(
    embeddings: np.ndarray, speakers: Sequence[str], resamples: int = 500, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the equal-error rate under resampling of clips (not pairs: pairs share clips).

    A clip drawn twice is not paired with itself. Says nothing about voices that were not recorded.
    """
    rng = np.random.default_rng(seed)
    scores, names = embeddings @ embeddings.T, np.asarray(speakers)
    rates = []
    for _ in range(resamples):
        drawn = rng.integers(len(names), size=len(names))
        one, two = np.triu_indices(len(drawn), k=1)
        one, two = drawn[one], drawn[two]
        apart = one != two
        one, two = one[apart], two[apart]
        is_same = names[one] == names[two]
        if is_same.any() and not is_same.all():
            values = scores[one, two]
            rates.append(equal_error(values[is_same], values[~is_same]).eer)
    if not rates:
        return 0.0, 1.0
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def cluster(embeddings: np.ndarray, threshold: float, block: int = 2000) -> np.ndarray:
    """Cluster numbers, int [N] from 0 in order of first appearance, of unit vectors [N,D].

    A zero vector (a clip without an embedding) gets -1. Average linkage: two groups are one voice while the mean
    cosine between their clips is at least `threshold`.
    """
    labels = np.full(len(embeddings), -1, dtype=np.int64)
    voiced = np.flatnonzero(np.linalg.norm(embeddings, axis=1) > 0.5)
    if not len(voiced):
        return labels
    groups = _grouped(embeddings[voiced], threshold, block)
    _, first_seen, number = np.unique(groups, return_index=True, return_inverse=True)
    order = np.empty(len(first_seen), dtype=np.int64)
    order[np.argsort(first_seen)] = np.arange(len(first_seen))
    labels[voiced] = order[number]
    return labels


def _grouped(vectors: np.ndarray, threshold: float, block: int) -> np.ndarray:
    """Group numbers from 0 of vectors [N,D], a block at a time and then the blocks' groups by their mean vectors.

    The product of two groups' mean vectors is the mean cosine between their members, so unit length is not restored.
    Groups that are mostly of one member (an encoder that takes every clip for a new voice) stay as the blocks had them:
    merging them would cost what the blocks were to save.
    """
    if len(vectors) <= block:
        return _average_linkage(vectors, threshold)
    groups = np.empty(len(vectors), dtype=np.int64)
    count = 0
    for first in range(0, len(vectors), block):
        part = _average_linkage(vectors[first : first + block], threshold)
        groups[first : first + block] = part + count
        count += int(part.max()) + 1
    if count > max(block, len(vectors) // 2):
        return groups
    return _grouped(_means(vectors, groups, count), threshold, block)[groups]


def _means(vectors: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, groups, vectors)
    return sums / np.bincount(groups, minlength=count)[:, None]


def _average_linkage(vectors: np.ndarray, threshold: float) -> np.ndarray:
    """Group numbers from 0 of vectors [N,D]; quadratic in N."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(vectors) == 1:
        return np.zeros(1, dtype=np.int64)
    cosines = squareform(vectors @ vectors.T, checks=False)
    distances = np.clip(1.0 - cosines.astype(np.float64), 0.0, 2.0)
    groups = fcluster(linkage(distances, method="average"), 1.0 - threshold, criterion="distance")
    return np.asarray(groups, dtype=np.int64) - 1


@dataclass(frozen=True)
class SpeakerLabels:
    """`session_cluster`: number within the clip's own session. `speaker`: a name for each clip, '' without a voice."""

    session_cluster: list[int]
    speaker: list[str]


def name_speakers(embeddings: np.ndarray, sessions: Sequence[str], config: ClusterConfig) -> SpeakerLabels:
    """Clusters every session by itself and names each cluster, `session:number`.

    With `across_sessions`, clusters of different sessions whose mean cosine reaches `threshold_across` share the name
    of the first. Names depend on the order of the rows: pass them sorted by session and position.

    Args:
        embeddings: unit vectors, float32 [N,D]; zeros where a clip has none.
        sessions: [N].
    """
    numbers = np.full(len(sessions), -1, dtype=np.int64)
    rows_of: dict[str, list[int]] = {}
    for row, session in enumerate(sessions):
        rows_of.setdefault(session, []).append(row)
    for rows in rows_of.values():
        numbers[rows] = cluster(embeddings[rows], config.threshold, config.block)
    speaker = [f"{s}:{n}" if n >= 0 else "" for s, n in zip(sessions, numbers.tolist(), strict=True)]
    if config.across_sessions:
        speaker = _join_sessions(embeddings, speaker, config)
    return SpeakerLabels(numbers.tolist(), speaker)


def cluster_means(embeddings: np.ndarray, clusters: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Names of the clusters of unit vectors [N,D], in order of first appearance, and their mean vectors [C,D].

    Args:
        clusters: [N]; "" where a vector is of none.
    """
    names = [name for name in dict.fromkeys(clusters) if name]
    index = {name: number for number, name in enumerate(names)}
    rows = [row for row, name in enumerate(clusters) if name]
    numbers = np.array([index[clusters[row]] for row in rows], dtype=np.int64)
    return names, _means(embeddings[rows], numbers, len(names))


def count_voices(means: np.ndarray, config: ClusterConfig) -> int:
    """Voices among clusters of several sessions, by `threshold_across`; `means`: as `cluster_means` gives them."""
    return len(np.unique(_grouped(means, config.threshold_across, config.block))) if len(means) else 0


def _join_sessions(embeddings: np.ndarray, speaker: list[str], config: ClusterConfig) -> list[str]:
    names, means = cluster_means(embeddings, speaker)
    if len(names) < 2:
        return speaker
    first: dict[int, str] = {}
    groups = _grouped(means, config.threshold_across, config.block).tolist()
    joined = {name: first.setdefault(group, name) for name, group in zip(names, groups, strict=True)}
    return [joined[name] if name else "" for name in speaker]


def purity(clusters: Sequence[str | int], speakers: Sequence[str]) -> tuple[float, float]:
    """(cluster purity, speaker purity), 0..1 and weighted by clips.

    Cluster purity: the share of clips that are of their cluster's most frequent speaker. Speaker purity: the share
    that lie in their speaker's most frequent cluster; without it, a cluster a clip would be perfect.
    """
    num = max(len(clusters), 1)
    return largest_share_count(clusters, speakers) / num, largest_share_count(speakers, clusters) / num


def largest_share_count(groups: Sequence[str | int], members: Sequence[str | int]) -> int:
    """How many are of their group's most frequent member; adds up over parts that share no group."""
    counts: dict[str | int, dict[str | int, int]] = {}
    for group, member in zip(groups, members, strict=True):
        inner = counts.setdefault(group, {})
        inner[member] = inner.get(member, 0) + 1
    return sum(max(inner.values()) for inner in counts.values())
