"""What must be carried to a machine with the device."""

import importlib.util
import runpy
import sys
from pathlib import Path

MOST = 64 * 2**20
THERE = ("torch", "triton", "numpy")
BETTER = {
    "sparsify": "peers",
    "sae_lens": "peers",
    "transformers": "caching",
    "lightning": "end_to_end",
    "hydra": "end_to_end",
}


def files(root: Path) -> list[Path]:
    """The files that a run without other packages reads: what its stages import, and itself."""
    runpy.run_path(str(Path(__file__).parent / "stages.py"), run_name="needed")
    try:
        import bisae.sae.kernels.triton_products
        import bisae.sae.kernels.triton_selection  # noqa: F401
    except ImportError:  # no Triton here
        pass
    loaded = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    ours = {path for path in loaded if path.is_relative_to(root / "bisae") or path.is_relative_to(root / "benchmarks")}
    kernels = set((root / "bisae" / "sae" / "kernels").glob("*.*")) | set(
        (root / "benchmarks" / "on_device").glob("*.py")
    )
    return sorted(ours | kernels | {root / "benchmarks" / "device.py"})


def show(root: Path) -> None:
    """Print the files, their size, and what is better with other packages."""
    found = files(root)
    size = sum(path.stat().st_size for path in found)
    for path in found:
        print(path.relative_to(root))  # noqa: T201
    print(f"\n{len(found)} files, {size / 2**20:.2f} MiB of at most {MOST >> 20} MiB")  # noqa: T201
    print(f"There: Python >= 3.11, {', '.join(THERE)}. No other package is needed.")  # noqa: T201
    for name, stage in BETTER.items():
        here = "installed here" if importlib.util.find_spec(name) else "not installed here"
        print(f"With {name} ({here}) stage `{stage}` measures that itself, and not its structure or nothing.")  # noqa: T201
