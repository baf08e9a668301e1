"""Sweeps: with `-m` every job is a process of its own, and the cells of all jobs are shown at the end.

Why processes: the ranks of a job on several devices start by running its command line again, which must not be the
sweep's; and whatever becomes of a job, its memory, its W&B runs and its environment end with it.
"""

import atexit
import functools
import inspect
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from traceback import format_exception, format_exception_only
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from bisae.cli.failure import JobLog, leave_failure
from bisae.cli.packing import packed
from bisae.cli.slurm import answer_sigterm, end_as_failed, one_line_for_each_failure
from bisae.runtime.errors import STOPPED, ConfigError, Refused, explained
from bisae.runtime.naming import name_of
from bisae.runtime.ranks import JOB, RANKS, leave, rank, tell_torchrun, under_torchrun, under_wandb_agent
from bisae.runtime.subcommands import SAFE_PATH, config_flags, with_this_code
from bisae.runtime.values import writable

if TYPE_CHECKING:
    from bisae.cells.cell import Cell

log = logging.getLogger("bisae.sweep")

SEARCH = "hydra_plugins._bisae.Search"  # the sweeper of a search
LAYERS = "BISAE_SWEEP_LAYERS"  # environment: what each job's `activations.layers` is, unless the user gave some
LADDER = "BISAE_SWEEP_LADDER"  # and `ladder`, where SAEs start from the checkpoint before
# What Lightning would take for the job's own: the ranks of whatever the sweep runs in.
OUTER = {*RANKS, "SLURM_NTASKS"}
PATIENCE = 10  # seconds an interrupted job has to end by itself
TOLD = (STOPPED, -signal.SIGTERM)
ENDED = {
    **dict.fromkeys(TOLD, "was told to stop; the same command goes on"),
    -signal.SIGKILL: "was killed, perhaps for its memory; the same command goes on, or with fewer SAEs in a job",
}
# Hydra's own keys that a job is given as they were typed; the others are about the sweep.
OF_JOBS = (
    *("hydra.searchpath", "hydra.verbose", "hydra.job.", "hydra.output_subdir"),
    *(f"hydra{sign}{kind}_logging" for kind in ("job", "hydra") for sign in "./"),
)
WAITS = "waits"  # in the folder of a sweep as long as its command runs
SAVING = 100  # seconds a job that is told to stop has to save; less than signal_delay_s of hydra/launcher=slurm


def one_process_per_job(main: Callable[[Any], object]) -> Callable[[Any], object]:
    """Goes between `hydra.main` and a script's `main`, which in a sweep runs in a process of the job's own.

    A number that `main` returns is returned in the sweep as well.

    Errors a user can mend (`explained`) end that process, or a single run, with `error: ...` and status 1. All but
    refusals, which name a key, leave their config and log.
    """

    @functools.wraps(main)
    def job(cfg: Any) -> object:
        if JOB in os.environ:  # SLURM sends it to all processes of a job; the sweep's answers it (`_status`)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        said = JobLog()
        try:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return run_job(Path(inspect.getfile(main)).absolute(), cfg)
            if JOB not in os.environ and HydraConfig.get().sweeper.get("_target_") == SEARCH:
                raise ConfigError("hparams_search", "optuna", "is a search, which needs -m after train.py")
            logging.getLogger().addHandler(said)
            value = main(cfg)
            if isinstance(value, float):
                leave(os.environ.get(JOB), "value", repr(value))
            return value
        except KeyboardInterrupt:
            raise SystemExit("interrupted; run the same command again to go on") from None
        except Exception as error:
            mendable = explained(error)
            message = f"error: {mendable}" if mendable else "".join(format_exception_only(error)).strip()
            left = ""
            if rank() == 0 and not isinstance(error, Refused | OmegaConfBaseException):
                left = leave_failure(cfg, [*said.lines, "".join(format_exception(error)).strip()])
            if under_torchrun():
                tell_torchrun(message)
            if rank() == 0:
                short = message.splitlines()[-1]
                leave(os.environ.get(JOB), "error", f"{short} ({left})" if left else short)
            if mendable:
                raise SystemExit("\n".join(filter(None, [message, left]))) from None
            if left:
                error.add_note(left)
            raise

    return job


def run_job(script: Path, cfg: Any) -> float | None:
    """Run the job Hydra is at; return its number, if it has one.

    A failure is not raised but left in the job's folder for the end of the sweep.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    (folder / "overrides").write_text("\n".join(hydra.overrides.task), encoding="utf-8")
    command = [sys.executable, *SAFE_PATH, str(script), *config_flags("main", "command-line")]
    of_jobs = [override for override in hydra.overrides.hydra if override.lstrip("+~").startswith(OF_JOBS)]
    command += [f"--config-name={hydra.job.config_name}", "hydra.mode=RUN", *of_jobs, *hydra.overrides.task]
    if LAYERS in os.environ and OmegaConf.select(cfg, "activations.layers") == []:
        command.append(f"activations.layers={os.environ[LAYERS]}")
    start = OmegaConf.select(cfg, "sae.start")
    warm = start == "previous" or (OmegaConf.is_list(start) and "previous" in start)
    if LADDER in os.environ and warm and cfg.ladder is None:
        command.append(f"ladder={os.environ[LADDER]}")
    outer = ("MASTER_", "TORCHELASTIC_")
    inherited = with_this_code(os.environ)
    environment = {key: value for key, value in inherited.items() if key not in OUTER and not key.startswith(outer)}
    environment[JOB] = str(folder)
    with subprocess.Popen(command, cwd=hydra.runtime.cwd, env=environment) as job:
        try:
            status = _status(job)
        except BaseException as stop:
            with suppress(subprocess.TimeoutExpired):  # Ctrl-C in a terminal reaches the job as well
                job.wait(PATIENCE if isinstance(stop, KeyboardInterrupt) else 0)
            job.terminate()
            with suppress(subprocess.TimeoutExpired):
                job.wait(SAVING)
            raise
        finally:
            job.kill()  # nothing happens to a job that has ended
    if status and not (folder / "error").exists():
        ended = ENDED.get(status, f"ended with status {status}")
        left = leave_failure(cfg, [shlex.join(command), ended]) if status not in TOLD else ""
        leave(folder, "error", f"{ended} ({left})" if left else ended)
    if status:
        end_as_failed()
    if not Path(hydra.sweep.dir, WAITS).exists():  # its command has ended: nobody will look
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            Path(hydra.sweep.dir).rmdir()
    value = folder / "value"
    return float(value.read_text(encoding="utf-8")) if value.exists() else None


def _status(job: "subprocess.Popen[bytes]") -> int:
    """How the job ends. Under submitit a job that is told to stop saves first, and only then is submitted again."""
    submit_again = signal.getsignal(signal.SIGUSR2)
    if not callable(submit_again):
        return job.wait()
    told = False

    def stop(*_: object) -> None:
        nonlocal told
        told = True
        job.terminate()
        late = threading.Timer(SAVING, job.kill)
        late.daemon = True
        late.start()

    signal.signal(signal.SIGUSR2, stop)
    try:
        status = job.wait()
    finally:
        signal.signal(signal.SIGUSR2, submit_again)
    if status and told:
        signal.raise_signal(signal.SIGUSR2)
    elif status in TOLD:  # by SLURM's SIGTERM, which submitit ignores
        answer_sigterm()
    return status


def swept(key: str, overrides: Sequence[str]) -> list[Any] | None:
    """The values of a sweep over `key`, in their order; None if it is not swept."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    chosen = [override for override in parsed if override.key_or_group == key]
    if not chosen or not chosen[-1].is_discrete_sweep():
        return None
    values: Any = OmegaConf.to_container(OmegaConf.create(f"[{','.join(chosen[-1].sweep_string_iterator())}]"))
    return list(values)


def layers_of_all_jobs(overrides: Sequence[str]) -> str | None:
    """The layers of a sweep over `layer`, as `activations.layers` takes them; None if `layer` is not swept."""
    values = swept("layer", overrides)
    if values is None:
        return None
    if "all" in values:
        return "all"
    listed = [layer for value in values for layer in (value if isinstance(value, list) else [value])]
    return str(sorted({layer for layer in listed if isinstance(layer, int)})).replace(" ", "")


def leave_logger(logger: Any, runs: str) -> None:
    """In a job of a sweep: leave its config group `logger` for the end of the sweep, which does not know it."""
    if rank() == 0:
        leave(os.environ.get(JOB), "logger.json", json.dumps({"node": logger, "runs": runs}))


def log_sweep(jobs: Iterable[Path], cells: "Sequence[Cell]") -> None:
    """Log the table of a sweep's `cells`, and their metrics over the LM's steps, in a W&B run of the sweep."""
    from bisae.cells.shown import lines_over_steps, table_of_cells

    left = [file for folder in jobs if (file := folder / "logger.json").exists()]
    if left:
        from bisae.training.loggers import CellLoggers

        try:
            loggers = CellLoggers(**json.loads(left[0].read_text(encoding="utf-8"))).wandb
            for logger in loggers:
                logger.log_sweep(os.environ["WANDB_RUN_GROUP"], *table_of_cells(cells), lines_over_steps(cells))
        except Exception as error:  # the sweep has ended well without it
            log.warning("the sweep has no W&B run of its own: %s: %s", type(error).__name__, error)


def name_of_sweep(typed: Sequence[str]) -> str:
    """The same for a sweep that is run again, or extended by more values: which keys it varies, and what it fixes."""
    parsed = {one.key_or_group: one for one in OverridesParser.create().parse_overrides(list(typed))}
    varied = sorted(key for key, one in parsed.items() if one.is_sweep_override())
    fixed = {key: one.get_value_element_as_str() for key, one in parsed.items() if key not in (*varied, "force")}
    return " ".join(["sweep", *varied, name_of({"varied": varied, "fixed": fixed})])


class Sweep(Callback):
    """What happens once a sweep (`hydra.callbacks`): before its first job and after its last."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """Refuse torchrun; hand to all jobs, by environment, the name of the sweep and the layers of all."""
        if under_torchrun():
            raise SystemExit("error: -m starts its jobs itself; start single runs with torchrun")
        if under_wandb_agent():
            remedy = "its runs would all be the agent's one: leave -m out, or unset WANDB_SWEEP_ID"
            raise SystemExit(f"error: -m under wandb agent: {remedy}")
        if config.hydra.sweeper._target_ == SEARCH:
            try:
                from hydra_plugins._bisae import Search
            except ImportError as error:
                remedy = "pip install -c constraints.txt -e '.[search]'"
                raise SystemExit(f"error: hydra/sweeper=optuna needs Optuna ({error}): {remedy}") from None
            Plugins.instance().register(Search)
        folder = Path(config.hydra.sweep.dir).absolute()
        if folder.exists():
            raise SystemExit(f"error: hydra.sweep.dir={folder}: is deleted at the end, so it must not exist yet")
        try:
            writable({"runs": folder})
        except Refused as error:  # Hydra would make a warning of it
            raise SystemExit(f"error: {error}") from None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WAITS).touch()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for number in (signal.SIGTERM, signal.SIGHUP):  # so that its job is ended too
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, lambda number, _: sys.exit(128 + number))
        if "submitit" in config.hydra.launcher._target_:
            one_line_for_each_failure(folder)
        params = OmegaConf.select(config, "hydra.sweeper.params") or {}
        typed = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        os.environ.setdefault("WANDB_RUN_GROUP", name_of_sweep(typed))
        if layers := layers_of_all_jobs(typed):
            os.environ[LAYERS] = layers
        if steps := swept("checkpoint", typed):
            os.environ[LADDER] = f"[{','.join(map(str, steps))}]"
        most = OmegaConf.select(config, "sweep.pack") or 1
        if config.hydra.launcher._target_.endswith(".BasicLauncher") and config.hydra.sweeper._target_ != SEARCH:
            with read_write(config), open_dict(config):
                config.hydra.overrides.task = packed(config.hydra.overrides.task, most)

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """Show the cells of all jobs; SystemExit that names the failed jobs, if any."""
        from bisae.cells.shown import cells_of_jobs, show_cells

        jobs = sorted(Path(config.hydra.sweep.dir).glob("*/overrides"), key=lambda file: file.stat().st_mtime_ns)
        typed = {file.parent: file.read_text(encoding="utf-8").splitlines() for file in jobs}
        if cells := cells_of_jobs(typed):
            show_cells(cells)
            log_sweep(typed, cells)
        searched = OmegaConf.select(config, "hydra.sweeper._target_") == SEARCH
        if searched:
            from bisae.cli.search import show_best

            found = show_best(Path(config.hydra.sweeper.results))
        if failed := [job for job in typed if (job / "error").exists()]:
            shared = set.intersection(*map(set, typed.values()))
            lines = [f"{len(failed)} of {len(typed)} jobs failed:"]
            for job in failed:
                own = [override for override in typed[job] if override not in shared] or typed[job]
                lines.append(f"  {' '.join(own)}: {(job / 'error').read_text(encoding='utf-8')}")
            if searched and found:
                log.warning("\n".join(lines))
            else:
                raise SystemExit("\n".join(lines))
