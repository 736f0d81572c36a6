"""A Slurm cluster of two nodes on this machine: `python tests/cluster/slurm.py` starts one and opens a shell in it.

One controller and two node daemons, each on a port of its own of 127.0.0.1, with an authentication service of their
own: nothing of an installed Slurm is read or changed, and everything is gone afterwards. Needs root, and Debian's
packages slurm-wlm and munge.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.timeouts import HANG_S

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
NODES = ("n1", "n2")
_SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

CONFIGURATION = """\
ClusterName=medseg
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
# A requeued job waits for as long as a credential lives: two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
# No control groups, no accounting, no MPI: what a container has.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
MinJobAge=3600
KillWait=30
# The nodes claim more than there may be; nobody measures here.
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class MissingProgramsError(Exception):
    """Slurm cannot be started here; the message says why."""


class SlurmCluster:
    """A running cluster.

    Args:
        folder: Where its files are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": _SBIN, "SLURM_CONF": str(folder / "slurm.conf")}

    def call(self, *command: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
        """What a command such as `squeue` prints."""
        done = subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """What Slurm knows of a job: `JobState`, `Restarts`, `ExitCode` and more."""
        words = self.call("scontrol", "show", "job", job_id, "--oneliner").split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def log(self) -> str:
        """The last lines of each daemon, for the message of a test that failed."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))


@contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Start a cluster, and stop every daemon of it whatever happens.

    Raises:
        MissingProgramsError: This machine has no Slurm, or we are not root.
    """
    missing = [name for name in PROGRAMS if shutil.which(name, path=_SBIN) is None]
    if missing:
        raise MissingProgramsError(f"There is no {', '.join(missing)} here: install Debian's slurm-wlm and munge.")
    if os.geteuid() != 0:
        raise MissingProgramsError("Slurm's daemons start as root alone here.")
    # A short path: that of a socket has a limit of 108 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name, ExitStack() as daemons:
        cluster = SlurmCluster(Path(name))
        cluster.folder.chmod(0o711)  # munged wants its socket within everyone's reach
        _write_configuration(cluster.folder)
        daemons.enter_context(_munge(cluster))
        daemons.enter_context(_daemon(cluster, "slurmctld", "-D", "-c"))
        for node in NODES:
            daemons.enter_context(_daemon(cluster, "slurmd", "-D", "-N", node))
        wait_until(lambda: cluster.call("sinfo", "--noheader", "--format=%D %T").split() == ["2", "idle"], 60, cluster)
        yield cluster


def wait_until(reached: object, seconds: float, cluster: SlurmCluster) -> None:
    """Ask twice a second; a cluster that never gets there is an error that shows its logs."""
    assert callable(reached)
    end = time.monotonic() + seconds
    while True:
        try:
            if reached():
                return
        except AssertionError:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, f"not reached in {seconds} s\n{cluster.log()}"
        time.sleep(0.5)


def _write_configuration(folder: Path) -> None:
    ports = _free_ports(1 + len(NODES))
    host = socket.gethostname().split(".")[0]
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 State=UNKNOWN"
        for node, port in zip(NODES, ports[1:], strict=True)
    )
    text = CONFIGURATION.format(host=host, controller_port=ports[0], folder=folder, nodes=nodes)
    (folder / "slurm.conf").write_text(text)
    (folder / "state").mkdir()
    for node in NODES:
        (folder / f"spool_{node}").mkdir()


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _munge(cluster: SlurmCluster) -> Iterator[None]:
    key = cluster.folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    places = [f"--{name}-file={cluster.folder / f'munge.{name}'}" for name in ("key", "pid", "log", "seed")]
    with _daemon(cluster, "munged", "--foreground", f"--socket={cluster.folder / 'munge.socket'}", *places):
        wait_until((cluster.folder / "munge.socket").exists, 30, cluster)
        yield


@contextmanager
def _daemon(cluster: SlurmCluster, *command: str) -> Iterator[None]:
    """Run until the block ends; in a session of its own, so that what it has started goes with it."""
    name = "_".join((command[0], *command[-1:])) if command[0] == "slurmd" else command[0]
    with (cluster.folder / f"{name}.out.log").open("wb") as output:
        process = subprocess.Popen(
            command,
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _shell() -> int:
    with slurm_cluster() as cluster:
        sys.stdout.write(cluster.call("sinfo"))
        return subprocess.run([os.environ.get("SHELL", "bash")], env=cluster.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(_shell())
