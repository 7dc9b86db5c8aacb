import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import operant
from operant.hf.workers import cores, worker_pool

ALONE = f"""
import sys, types
package = sys.modules["operant"] = types.ModuleType("operant")
package.__path__ = {list(operant.__path__)}
"""
"""The pool needs the standard library only: without operant's front door, which imports torch, a process starts in a
twentieth of the time."""
PARENT = (
    ALONE
    + """
import os, sys, time
from operant.hf.workers import worker_pool

def busy(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    with worker_pool(1) as pool:
        pool.submit(busy, sys.argv[1]).result()
"""
)
STOPPED = (
    ALONE
    + """
import os, signal, sys, time
from pathlib import Path
from operant.hf.workers import worker_pool

def busy(folder):
    (Path(folder) / str(os.getpid())).touch()
    while True:
        time.sleep(.01)
        (Path(folder) / "written").write_text(str(time.time()))

if __name__ == "__main__":
    try:
        with worker_pool(2) as pool:
            futures = [pool.submit(busy, sys.argv[1]) for _ in range(3)]
            futures[0].result()
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""
)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")
@pytest.mark.parametrize("group", [False, True])
def test_an_interrupt_stops_the_workers_before_it_says_so(tmp_path, interruptible, group):
    """To the first process alone (kill -INT) or to all of them (Ctrl-C): no worker is left, and none complains."""
    (tmp_path / "parent.py").write_text(STOPPED)
    (tmp_path / "out").mkdir()
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", tmp_path / "out"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(pids := [p.name for p in (tmp_path / "out").iterdir() if p.name.isdigit()]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (os.killpg if group else os.kill)(parent.pid, signal.SIGINT)
    assert parent.stdout.readline() == "stopped\n"
    assert not [pid for pid in pids if Path("/proc", pid).exists()], "a worker outlived the message"
    out, err = parent.communicate(timeout=60)
    assert (out, err, parent.returncode) == ("", "", 0)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the worker in /proc")
def test_a_killed_parent_takes_its_workers_along(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", pid_file])
    deadline = time.monotonic() + 60
    while not (pid_file.is_file() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = Path("/proc", pid_file.read_text())
    parent.kill()
    parent.wait()
    while worker.exists() and "Z" not in (worker / "stat").read_text().split():
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


def test_workers_threads_sleep_and_this_process_is_left_as_it_was(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with worker_pool(1, threads=1) as pool:
        assert pool.submit(os.getenv, "OMP_WAIT_POLICY").result() == "PASSIVE"
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
    assert "OMP_WAIT_POLICY" not in os.environ and os.environ["OMP_NUM_THREADS"] == "7"
    assert cores() >= 1
