"""Lets torchaudio 2.11 import beside a CPU build of torch.

The published torchaudio 2.11 library is linked against CUDA, so `torchaudio._extension` fails to load where torch has
none, and with it pyannote.audio. Loading, resampling and features are pure Python there; what is put in place of the
extension is the state 'not built' that torchaudio itself knows. On a CUDA build of torch nothing happens.

`python -m voxmill.core.torchaudio_cpu` writes a `.pth` file into this environment, so that Ray's workers have it too.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

NAME = "torchaudio._extension"


class _NotBuilt(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for `torchaudio._extension` alone, and only beside a torch without CUDA."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != NAME:
            return None
        import torch

        if torch.version.cuda is not None:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        def fail_if_no_align(function: object) -> object:
            def refuse(*args: object, **kwargs: object) -> object:
                raise RuntimeError("forced_align needs the torchaudio extension, which this CPU build of torch lacks")

            return refuse

        module._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        module._IS_RIR_AVAILABLE = False  # type: ignore[attr-defined]
        module._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
        module.fail_if_no_align = fail_if_no_align  # type: ignore[attr-defined]
        module.lazy_import_sox_ext = None  # type: ignore[attr-defined]


def install_hook() -> None:
    """Puts the hook in front of the import system, once a process."""
    if not any(type(finder).__name__ == "_NotBuilt" for finder in sys.meta_path):
        sys.meta_path.insert(0, _NotBuilt())


if __name__ == "__main__":
    target = Path(sysconfig.get_paths()["purelib"]) / "voxmill_torchaudio_cpu.pth"
    target.write_text("import voxmill.core.torchaudio_cpu; voxmill.core.torchaudio_cpu.install_hook()\n")
