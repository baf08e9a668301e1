"""A SLURM cluster of one node: this machine, in a folder of its own, until it is stopped."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "scontrol")
CONFIG = """
ClusterName=bisae
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=3
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=100
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=100
PartitionName=kill Nodes=ALL PriorityTier=1 PreemptMode=CANCEL GraceTime=100
PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF
"""
# Accounting needs a database; the controller remembers ended jobs for minutes, which serves as well.
SACCT = """#!{python}
import re, subprocess
jobs = subprocess.run(["scontrol", "show", "job", "--oneliner"], capture_output=True, text=True).stdout
print("JobID|State|NodeList")
for job in jobs.splitlines():
    said = dict(re.findall(r"(\\S+?)=(\\S*)", job))
    if "JobId" in said:
        array = said.get("ArrayJobId")
        name = f"{{array}}_{{said.get('ArrayTaskId')}}" if array else said["JobId"]
        print(f"{{name}}|{{said['JobState']}}|{{said.get('NodeList', '')}}")
"""


def missing() -> str | None:
    """Why there can be no cluster here."""
    if os.geteuid() != 0:
        return "SLURM's daemons start only as root"
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"no {', '.join(lacking)} (apt-get install slurmctld slurmd)" if lacking else None


def wait_until(true: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait until `true()` is; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"after {seconds} s still not: {what}"
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Cluster:
    """Partitions: `low` and `kill`, whose jobs `high` preempts: SLURM requeues or ends them after `GraceTime`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir(parents=True)
        host = socket.gethostname().partition(".")[0]
        config = CONFIG.format(host=host, folder=folder, controller=_free_port(), node=_free_port())
        (folder / "slurm.conf").write_text(config)
        (folder / "bin" / "sacct").write_text(SACCT.format(python=sys.executable))
        (folder / "bin" / "sacct").chmod(0o755)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
        }
        self._daemons: list[subprocess.Popen[bytes]] = [
            subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in (["slurmctld", "-D"], ["slurmd", "-D", "-N", host])
        ]
        self.commands: list[subprocess.Popen[bytes]] = []  # that wait for jobs
        wait_until(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"), "the node is idle")

    def ask(self, *command: str) -> str:
        """What a command of SLURM says."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout.strip()

    def jobs(self) -> list[dict[str, str]]:
        """What the controller knows of each job, by its names."""
        lines = self.ask("scontrol", "show", "job", "--oneliner").splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if "JobId=" in line]

    def close(self) -> None:
        """End all jobs and commands, then the daemons."""
        self.ask("scancel", "--user=root")
        self.ask("scancel", "--user=root", "--signal=KILL", "--full")
        for process in [*self.commands, *reversed(self._daemons)]:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
