"""What the generator needs of a batch, whichever way it keeps its state."""

from collections.abc import Sequence
from typing import Protocol

from model.generation.active_request import ActiveRequest


class Batch(Protocol):
    """Requests that share each step of the model: `ContinuousBatch` (rows that come and go) and `StaticBatch` (slots).

    One thread at a time uses a batch. A request's result does not depend on the others in the batch.
    """

    @property
    def active(self) -> list[ActiveRequest]:
        """Requests in progress."""
        ...

    def join(self, requests: Sequence[ActiveRequest]) -> None:
        """Reads the requests' sequences; they take part from the next step on."""
        ...

    def step(self) -> list[ActiveRequest]:
        """One patch for every request in progress; returns them, those included that are finished and have left."""
        ...

    def leave(self, requests: Sequence[ActiveRequest]) -> None:
        """Drops requests before they are finished, such as those of a client that closed its stream."""
        ...
