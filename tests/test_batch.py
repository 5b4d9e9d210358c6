"""Jobs: each is run once and written down once, whatever is killed, full or done twice at the same time."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
import trivial

from dip import batch
from dip.batch import places

HERE = Path(__file__).resolve().parent
SOURCES = os.pathsep.join([str(HERE.parent), str(HERE)])


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def work(jobs, folder: Path, place: batch.Place | None = None, **options) -> batch.Progress:
    with batch.Results(folder / "out") as results:
        return batch.run(jobs, results, place or batch.InProcess(), **options)


def counts(progress: batch.Progress) -> tuple[int, int, int, int]:
    return progress.done, progress.failed, progress.kept, progress.left


# ---------------------------------------------------------------------- keys


def test_digest_depends_on_values_shape_and_dtype_and_on_nothing_else():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = [array.copy(order="F"), array.astype(">f4"), np.stack([array, array])[1]]
    assert {batch.digest(one) for one in same} == {batch.digest(array)}
    others = [array.reshape(4, 3), array.astype(np.float64), array + np.float32(1e-6), array.view(np.int32)]
    assert len({batch.digest(one) for one in [array, *others]}) == 5


def test_keys_do_not_depend_on_the_order_of_their_parts():
    assert batch.key(a=1, b=[2, {"c": 3, "d": 4}]) == batch.key(b=[2, {"d": 4, "c": 3}], a=1)
    assert batch.key(a=1, b=2) != batch.key(a=2, b=1)


# ---------------------------------------------------------------------- one run


def test_finished_jobs_are_never_run_again(tmp_path):
    jobs = trivial.jobs(trivial.noted, range(5), tmp_path)
    assert counts(work(jobs, tmp_path)) == (5, 0, 0, 0)
    more = trivial.jobs(trivial.noted, range(7), tmp_path)
    assert counts(work(more, tmp_path)) == (2, 0, 5, 0)
    assert lines(tmp_path / "begun") == [str(n) for n in range(7)]
    assert [one["number"] for one in records(tmp_path / "out")] == list(range(7))
    assert sorted(path.name for path in (tmp_path / "out" / ".runs").iterdir() if path.name != "lock") == []


def test_equal_jobs_of_a_run_are_run_once(tmp_path):
    jobs = trivial.jobs(trivial.noted, [1, 1, 2], tmp_path)
    assert counts(work(jobs, tmp_path)) == (2, 0, 1, 0)
    assert lines(tmp_path / "begun") == ["1", "2"]


def test_a_failing_job_is_written_down_the_rest_goes_on_and_it_is_tried_again(tmp_path):
    jobs = trivial.jobs(trivial.failing, [1]) + trivial.jobs(trivial.noted, [2], tmp_path)
    seen = []
    progress = work(jobs, tmp_path, tell=lambda progress, job, record: seen.append(record["status"]))
    assert counts(progress) == (1, 1, 0, 0)
    assert seen == ["failed", "done"]
    assert counts(work(jobs, tmp_path)) == (0, 1, 1, 0)
    found = list(batch.Results.read(tmp_path / "out" / "results.jsonl"))
    assert [(one["status"], one["job"]) for one in found] == [("done", 2), ("failed", 1)]
    assert found[1]["error"] == "ValueError: job 1 cannot be done"


def test_what_cannot_be_prepared_fails_alone(tmp_path):
    def missing():
        raise FileNotFoundError("no such picture")

    bad = batch.Job("bad", trivial.noted, missing)
    assert counts(work([bad, *trivial.jobs(trivial.noted, [1], tmp_path)], tmp_path)) == (1, 1, 0, 0)


def test_what_is_not_finite_becomes_null(tmp_path):
    with batch.Results(tmp_path) as results:
        results.add("a", {"status": "done", "psnr": float("inf"), "more": [float("nan"), {"x": 1.5}]})
    assert records(tmp_path) == [{"key": "a", "status": "done", "psnr": None, "more": [None, {"x": 1.5}]}]


def test_ctrl_c_ends_a_run_that_goes_on_later(tmp_path):
    jobs = [*trivial.jobs(trivial.noted, [1, 2], tmp_path), *trivial.jobs(trivial.interrupted, [3])]
    with pytest.raises(KeyboardInterrupt):
        work(jobs, tmp_path)
    assert counts(work(trivial.jobs(trivial.noted, [1, 2, 3], tmp_path), tmp_path)) == (1, 0, 2, 0)


def test_files_are_there_before_their_record_is(tmp_path):
    seen = []

    def tell(progress, job, record):
        seen.append((tmp_path / "out" / "picture-1").exists())

    work(trivial.jobs(trivial.fitted, [1]), tmp_path, tell=tell)
    assert seen == [True]


def test_the_estimate_counts_each_kind_by_itself():
    jobs = [batch.Job(str(n), trivial.noted, tuple, kind="slow" if n < 4 else "quick") for n in range(10)]
    progress = batch.Progress(jobs)
    assert progress.seconds_left() is None
    progress.count(jobs[0], "done", 50)
    progress.count(jobs[4], "done", 1)
    assert progress.left == 8
    progress._began = time.monotonic() - 51  # one job at a time
    assert progress.seconds_left() == pytest.approx(3 * 50 + 5 * 1, rel=0.01)
    progress._began = time.monotonic() - 25.5  # two at a time
    assert progress.seconds_left() == pytest.approx((3 * 50 + 5 * 1) / 2, rel=0.01)


@pytest.mark.parametrize(("at_once", "ends"), [(1, (150, 200)), (2, (150, 150))])
def test_the_estimate_does_not_count_the_start_of_workers(monkeypatch, at_once, ends):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    jobs = [batch.Job(str(n), trivial.noted, tuple) for n in range(10)]
    progress = batch.Progress(jobs)
    for job, now[0] in zip(jobs, ends, strict=False):  # they began at 100
        progress.count(job, "done", 50)
    assert progress.seconds_left() == pytest.approx(8 * 50 / at_once)


# ---------------------------------------------------------------------- the file


@pytest.mark.parametrize("written", [0, 7])
def test_a_full_disk_leaves_no_half_record(tmp_path, monkeypatch, written):
    jobs = trivial.jobs(trivial.noted, range(4), tmp_path)
    write, calls = os.write, []

    def full(file: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) < 3:
            return write(file, data)
        if written and len(calls) == 3:
            return write(file, data[:written])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dip.batch.results.os.write", full)
    with pytest.raises(OSError, match="a result cannot be written"):
        work(jobs, tmp_path)
    monkeypatch.undo()
    assert [one["number"] for one in records(tmp_path / "out")] == [0, 1]
    assert counts(work(jobs, tmp_path)) == (2, 0, 2, 0)
    assert [one["number"] for one in records(tmp_path / "out")] == [0, 1, 2, 3]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of resources are those of POSIX")
def test_a_limit_on_the_size_of_files_is_met_as_a_full_disk(tmp_path):
    code = (
        "import resource, trivial; from dip import batch\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"results = batch.Results({str(tmp_path / 'out')!r})\n"
        f"batch.run(trivial.jobs(trivial.noted, range(50), {str(tmp_path)!r}), results, batch.InProcess())"
    )
    env = {**os.environ, "PYTHONPATH": SOURCES}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert "a result cannot be written" in done.stderr
    kept = len(records(tmp_path / "out"))  # each line is whole
    assert 0 < kept < 50
    assert counts(work(trivial.jobs(trivial.noted, range(50), tmp_path), tmp_path)) == (50 - kept, 0, kept, 0)


def test_the_piece_of_a_line_that_a_lost_computer_left_is_cut_off(tmp_path):
    jobs = trivial.jobs(trivial.noted, range(3), tmp_path)
    work(jobs, tmp_path)
    path = tmp_path / "out" / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert len(list(batch.Results.read(path))) == 2
    assert counts(work(jobs, tmp_path)) == (1, 0, 2, 0)
    assert [one["number"] for one in records(tmp_path / "out")] == [0, 1, 2]


def test_a_folder_that_cannot_be_made_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        batch.Results(tmp_path / "file" / "out")


# ---------------------------------------------------------------------- several at once


def test_two_runs_at_once_share_the_jobs(tmp_path):
    jobs = trivial.jobs(trivial.noted, range(30), tmp_path, last=(0.002,))
    found: list[batch.Progress] = []
    threads = [threading.Thread(target=lambda: found.append(work(jobs, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.left for one in found] == [0, 0]
    assert sum(one.done for one in found) == 30
    assert sorted(map(int, lines(tmp_path / "begun"))) == list(range(30))
    assert sorted(one["number"] for one in records(tmp_path / "out")) == list(range(30))


def test_a_job_of_another_run_is_busy_until_that_ends(tmp_path):
    with batch.Results(tmp_path) as ours:
        theirs = batch.Results(tmp_path)
        assert theirs.claim("a") == "mine"
        assert ours.claim("a") == "busy"
        assert ours.claim("b") == "mine"
        assert theirs.claim("b") == "busy"
        theirs.close()
        assert ours.claim("a") == "mine"
        assert ours.add("a", {"status": "done"})
        with batch.Results(tmp_path) as third:
            assert third.claim("a") == "finished"
            assert not third.add("a", {"status": "done"})
    assert len(records(tmp_path)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_client_is_started_again_while_another_goes_on(tmp_path):
    env = {**os.environ, "PYTHONPATH": SOURCES}
    command = [sys.executable, HERE / "trivial.py", tmp_path, "8", "0.2"]
    first = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    while len(lines(tmp_path / "begun")) < 2:
        assert first.poll() is None
        time.sleep(0.01)
    jobs = trivial.jobs(trivial.noted, range(8), str(tmp_path), last=(0.2,))
    others: list[batch.Progress] = []
    second = threading.Thread(target=lambda: others.append(work(jobs, tmp_path)))
    second.start()
    while len(lines(tmp_path / "begun")) < 4:
        time.sleep(0.01)
    first.kill()  # in mid-job
    first.communicate()
    second.join()
    assert others[0].left == 0
    done = [one["number"] for one in records(tmp_path / "out")]
    assert sorted(done) == list(range(8))
    begun = lines(tmp_path / "begun")
    assert 8 <= len(begun) <= 9  # the one that was cut short may have been begun twice, none else
    again = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert again.stdout.split() == ["0", "8"]


# ---------------------------------------------------------------------- places


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_worker_loses_nothing_and_pictures_are_the_same_bit_by_bit(tmp_path):
    fits = trivial.jobs(trivial.fitted, [1, 2])
    threads = torch.get_num_threads()
    work(fits, tmp_path / "here")
    jobs = [fits[0], *trivial.jobs(trivial.deadly, [7], tmp_path, last=(1,)), fits[1]]
    progress = work(jobs, tmp_path / "there", batch.Processes(1, threads=threads))
    assert counts(progress) == (3, 0, 0, 0)
    assert lines(tmp_path / "deaths") == ["7", "7"]
    for seed in (1, 2):
        here, there = ((tmp_path / place / "out" / f"picture-{seed}").read_bytes() for place in ("here", "there"))
        assert here == there
    found = {one["job"]: one for one in records(tmp_path / "there" / "out")}
    assert len(found) == 3
    assert found[1]["threads used"] == found[1]["threads"] == threads
    if sys.platform == "linux":
        assert found[1]["peak_bytes"] > 50 * 2**20  # PyTorch alone is larger


class Falling(batch.Place):
    """A place in which a job named "deadly" takes all that are under way down with it."""

    def __init__(self) -> None:
        self.renewed, self.most_alone, self.flying = 0, 0, []

    def window(self):
        return 3

    def submit(self, function, arguments):
        future = Future()
        self.flying.append((function, arguments, future))
        if len(self.flying) == 3 or self.renewed:
            self.land()
        return future

    def land(self):
        flying, self.flying = self.flying, []
        broken = any(function is trivial.deadly for function, _, _ in flying)
        self.most_alone = max(self.most_alone, len(flying) if self.renewed else 0)
        for function, arguments, future in flying:
            if broken:
                future.set_exception(BrokenProcessPool("a worker died"))
            else:
                future.set_result((function(*arguments), {"seconds": 0.0}))

    def renew(self):
        self.renewed += 1


def test_a_job_that_takes_its_worker_down_each_time_fails_and_the_others_do_not(tmp_path):
    jobs = trivial.jobs(trivial.noted, [1, 2], tmp_path) + trivial.jobs(trivial.deadly, [3], tmp_path, last=(99,))
    jobs += trivial.jobs(trivial.noted, [4, 5], tmp_path)
    place = Falling()
    assert counts(work(jobs, tmp_path, place)) == (4, 1, 0, 0)
    failed = [one for one in records(tmp_path / "out") if one["status"] == "failed"]
    assert [one["job"] for one in failed] == [3]
    assert "died 3 times" in failed[0]["error"]
    assert place.renewed == 3
    assert place.most_alone == 1


def test_any_executor_will_do(tmp_path):
    with ThreadPoolExecutor(2) as executor:
        jobs = trivial.jobs(trivial.noted, range(6), tmp_path)
        assert counts(work(jobs, tmp_path, batch.Given(executor, 2))) == (6, 0, 0, 0)
        assert executor.submit(int, "5").result() == 5  # it is still the caller's
    assert sorted(map(int, lines(tmp_path / "begun"))) == list(range(6))


def test_an_executor_that_breaks_and_cannot_be_replaced_ends_the_run(tmp_path):
    class Broken(ThreadPoolExecutor):
        def submit(self, *arguments):
            raise BrokenProcessPool("a worker died")

    with Broken(1) as executor, pytest.raises(ChildProcessError, match="give a new one"):
        work(trivial.jobs(trivial.noted, [1], tmp_path), tmp_path, batch.Given(executor, 1))


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(places, "cores", lambda: 8)
    for workers, threads in ((1, 8), (3, 2), (8, 1), (20, 1)):
        place = batch.Processes(workers)
        assert place.threads == threads
        place.close()
    with pytest.raises(ValueError, match="one for each"):
        batch.Processes(2, gpus=["0"])
    with pytest.raises(ValueError, match="workers"):
        batch.Processes(0)


def test_a_worker_sees_its_own_gpu_only(monkeypatch):
    import queue

    numbers: queue.Queue[str] = queue.Queue()
    numbers.put("3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    before = signal.getsignal(signal.SIGINT)
    try:
        places._begin_worker(numbers)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # Ctrl-C is the parent's
    finally:
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------------- Dask


def test_no_scheduler_is_said(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(places, "_PATIENCE", 0.5)
    with pytest.raises(ConnectionError, match="no Dask scheduler answers"):
        batch.Dask("tcp://127.0.0.1:1")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_dask_workers_join_late_and_die_and_the_scheduler_is_restarted(tmp_path):
    pytest.importorskip("distributed")
    port = _free_port()
    address, env = f"tcp://127.0.0.1:{port}", {**os.environ, "PYTHONPATH": SOURCES, "OMP_NUM_THREADS": "1"}
    running = []

    def start(module: str, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *words, "--dashboard-address", "127.0.0.1:0"]
        running.append(subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.DEVNULL))
        return running[-1]

    def scheduler() -> subprocess.Popen:
        return start("dask_scheduler", "--host", "127.0.0.1", "--port", str(port))

    def worker(name: str) -> subprocess.Popen:
        there = ["--local-directory", str(tmp_path / name), "--resources", "GPU=1"]
        return start("dask_worker", address, "--no-nanny", "--nthreads", "1", *there)

    said, steps = [], []

    def tell(progress: batch.Progress, job: batch.Job, record: dict) -> None:
        steps.append(record["status"])
        if len(steps) == 3:  # another worker, and the end of the scheduler in the middle of it all
            first.kill()
            first.wait()
            scheduler()
            worker("third")

    try:
        first = scheduler()
        place = batch.Dask(address, threads=1, resources={"GPU": 1}, say=said.append)
        # no worker is there yet; the one that comes dies of its first job
        worker("first")
        worker("second")
        jobs = trivial.jobs(trivial.deadly, [7], tmp_path, last=(1,))
        jobs += trivial.jobs(trivial.noted, range(10), tmp_path, last=(0.1,)) + trivial.jobs(trivial.fitted, [1])
        progress = work(jobs, tmp_path, place, tell=tell)
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert counts(progress) == (12, 0, 0, 0)
    # a short absence may go unnoticed: Dask's client comes back by itself
    assert set(said) <= {f"the scheduler at {address} is gone; waiting for it to come back"}
    assert len(records(tmp_path / "out")) == len({one["key"] for one in records(tmp_path / "out")}) == 12
    assert len(lines(tmp_path / "deaths")) >= 2
    if torch.get_num_threads() == 1:
        work(trivial.jobs(trivial.fitted, [1]), tmp_path / "here")
        assert (tmp_path / "out" / "picture-1").read_bytes() == (tmp_path / "here" / "out" / "picture-1").read_bytes()


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(("named", "expected"), [(None, ["0", "1"]), ("3,5", ["3", "5"])])
def test_gpus_have_the_names_that_a_worker_understands(named, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert batch.gpus() == expected
