"""A W&B sweep: its agent calls `medseg fit` unchanged, here with a server that stands for W&B's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from tests.end_to_end.conftest import SMALL
from tests.timeouts import HANG_S

pytestmark = pytest.mark.processes

LR = "model.optimizer.init_args.lr"
RATES = (0.001, 0.004)


class SweepServer(ThreadingHTTPServer):
    """Answers an agent as W&B does: what the sweep is, and a trial whenever the agent asks for work."""

    def __init__(self, sweep: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.sweep = sweep
        self.left = [(f"trial{number}", rate) for number, rate in enumerate(RATES)]

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "SweepWithRuns" in query:
            return {"project": {"sweep": {"config": json.dumps(self.sweep), "runs": {"edges": []}}}}
        if "CreateAgent" in query:
            return {"createAgent": {"agent": {"id": "agent"}}}
        if "Heartbeat" in query:
            commands: list[dict[str, Any]] = []
            if self.left and not json.loads(variables["runState"]):
                name, rate = self.left.pop(0)
                commands = [{"type": "run", "run_id": name, "program": "medseg", "args": {LR: {"value": rate}}}]
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}
        return {"viewer": {"id": "1", "username": "user", "entity": "entity", "flags": "{}", "teams": {"edges": []}}}


class _Answer(BaseHTTPRequestHandler):
    server: SweepServer

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = json.dumps({"data": self.server.answer(asked["query"], asked.get("variables", {}))}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(phantoms: dict[str, Path], tmp_path: Path) -> Iterator[SweepServer]:
    """A sweep with the command of a shipped one, made small, and logging to files alone."""
    sweep = yaml.safe_load(Path("configs/sweeps/learning_rate.yaml").read_text())
    shipped = {"hippocampus.yaml": "configs/experiment/demo.yaml", "wandb.yaml": "configs/logger/wandb_offline.yaml"}
    command = [
        str(Path(shipped.get(Path(word).name, word)).absolute()) if "/" in word else word for word in sweep["command"]
    ]
    logs = f"--trainer.logger.init_args.save_dir={tmp_path}"
    here = ["--data_root", str(phantoms["uw_madison"]), "--runs", str(tmp_path), *SMALL, logs]
    server = SweepServer({**sweep, "command": [*command[:-1], *here, command[-1]]})
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_agent_trains_each_trial(server: SweepServer, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "WANDB_API_KEY": "a" * 40,
        "WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}",
        "WANDB_DIR": str(tmp_path),
    }
    agent = ["wandb", "agent", "--count", str(len(RATES)), "entity/project/sweep"]
    done = subprocess.run(
        agent, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 0, done.stderr
    runs = sorted(tmp_path.glob("demo/version_*"))
    settings = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
    assert [each["model"]["optimizer"]["init_args"]["lr"] for each in settings] == list(RATES), done.stderr
    assert all((run / "checkpoints" / "best.ckpt").is_file() for run in runs)
    logged = sorted(path.name.rpartition("-")[2] for path in tmp_path.glob("wandb/offline-run-*"))
    assert logged == ["trial0", "trial1"]
