"""Lets bisae's SAEs be imported where only PyTorch, Triton and NumPy are installed.

What bisae.sae imports besides is for checks and for files: jaxtyping and annotated_types annotate, OmegaConf's error is
only caught, safetensors reads and writes SAEs, which no stage does. A stand-in takes the place of what is missing, and
of nothing that is installed.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Shaped:
    """`Float[Tensor, "token d_model"]` is Tensor."""

    def __getitem__(self, of: Any) -> Any:
        return of[0]


def _stand_in(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return module


def _no_files(*_: object, **__: object) -> Any:
    raise ImportError("safetensors is not installed: SAEs can be neither read nor written")


def stand_in() -> list[str]:
    """Put stand-ins where packages are missing; returns the names of these."""
    shaped = ("BFloat16", "Bool", "Float", "Float32", "Float64", "Int", "Int16", "Int32", "Int64", "Shaped", "UInt8")
    bound = dict.fromkeys(("Ge", "Gt", "Le", "Lt", "MinLen", "Predicate"), lambda *_: None)
    error = type("OmegaConfBaseException", (Exception,), {})
    packages = {
        "jaxtyping": [_stand_in("jaxtyping", **{name: _Shaped() for name in shaped})],
        "annotated_types": [_stand_in("annotated_types", **bound)],
        "omegaconf": [_stand_in("omegaconf"), _stand_in("omegaconf.errors", OmegaConfBaseException=error)],
        "safetensors": [
            _stand_in("safetensors", SafetensorError=type("SafetensorError", (Exception,), {})),
            _stand_in("safetensors.torch", load_file=_no_files, save_file=_no_files),
        ],
    }
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    for name in missing:
        sys.modules.update({module.__name__: module for module in packages[name]})
    return missing
