"""Results of windows for tests of the graph's rows and workers."""

from voxmill.data.records import Candidate, SourceInfo, Window, WindowResult


def result_of(name: str, num_candidates: int = 0, dc_offset: float = 0.0) -> WindowResult:
    window = Window(
        recording_id=name,
        name=name,
        path=name,
        start_sample=0,
        end_sample=32000,
        sample_rate=16000,
        source=SourceInfo(session=name),
    )
    candidates = tuple(
        Candidate(clip_id=f"{name}{i}", start_sample=0, end_sample=1, turn=0, cut="pause")
        for i in range(num_candidates)
    )
    return WindowResult(window=window, candidates=candidates, dc_offset=dc_offset)
