"""Several processes train one run: the same batches, losses and gradients as one, and one that ends ends them all."""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sslkit import processes
from sslkit.cli import main
from sslkit.cli.launch import launch
from sslkit.data import load, split
from sslkit.errors import InputError, Left
from sslkit.methods import VAT, CoMatch, FixMatch, MixMatch
from sslkit.training import Config, Feed, fit, run
from sslkit.training.loop import set_up

# low thresholds, so that pseudo-labels are kept from the first step on
METHODS = ("supervised", "pimodel", "pseudolabel:tau=0.11", "meanteacher", "vat", "uda:tau=0.11,tsa=linear", "fixmatch:tau=0.11",
           "dash", "dash:average=all,rho0=unlabeled", "freematch:lambda_f=1", "comatch:tau=0.11,contrast_th=0.05",
           "simmatch:tau=0.11", "simmatch:tau=0.11,memory=teacher", "simmatch:tau=0.11,memory=eman")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def group(monkeypatch):
    """group(rank, world): this process believes to be one of several; nothing can be exchanged."""
    def be(rank: int, world: int) -> None:
        monkeypatch.setattr(processes, "dist", SimpleNamespace(
            is_available=lambda: True, is_initialized=lambda: world > 1, get_world_size=lambda: world, get_rank=lambda: rank))
    return be


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """What each method computed in 20 steps: {(rank, world): {method: ...}}, by real processes that talk through gloo."""
    folder, started = tmp_path_factory.mktemp("group"), []
    for world in (1, 2):
        port = str(free_port())
        started += [subprocess.Popen([sys.executable, Path(__file__).with_name("group.py"), str(rank), str(world), port, folder, *METHODS],
                                     env={**os.environ, "OMP_NUM_THREADS": "1"}) for rank in range(world)]
    assert [process.wait(300) for process in started] == [0, 0, 0]
    return {(rank, world): torch.load(folder / f"{rank}-of-{world}.pt") for rank, world in ((0, 1), (0, 2), (1, 2))}


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_learns(learned, method):
    one, first, second = (learned[key][method] for key in ((0, 1), (0, 2), (1, 2)))
    assert len(one["steps"]) == 20 and one["steps"][-1][0].keys() == first["steps"][-1][0].keys()
    for (sums, grads), (other_sums, other_grads) in zip(one["steps"], first["steps"]):
        counts = {"rows", "kept", "known", "kept_known", "kept_right", "right"} & sums.keys()
        for name in sums:
            mine, other = (part[name] / (1 if name in counts else part["steps"]) for part in (sums, other_sums))
            assert torch.allclose(mine, other, rtol=1e-5, atol=1e-5), name
        assert all(torch.allclose(mine, other, rtol=1e-5, atol=1e-5) for mine, other in zip(grads, other_grads, strict=True))
    for part in ("method", "student"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items())     # processes never drift apart
        assert all(torch.allclose(value.float(), first[part][name].float(), rtol=1e-5, atol=1e-5) for name, value in one[part].items())


@pytest.mark.parametrize("method", (FixMatch(), VAT(), CoMatch()), ids=lambda method: type(method).__name__)
def test_the_batch_of_a_step_is_the_same_whatever_the_number_of_processes(group, method):
    data = split(load("digits"), labels=20, seed=0)
    config = Config(batch_size=8, mu=3, strong="mc").resolve(data, torch.device("cpu"))

    def batches(world: int) -> list:
        found = []
        for rank in range(world):
            group(rank, world)
            set_up(method, data, config)
            found.append(Feed(data, method, config)(5))
        return found

    (whole,) = batches(1)
    for world in (2, 4):
        parts = batches(world)
        for name in ("x", "y", "i", "j"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
        assert all(torch.equal(torch.cat(views), all_of_them) for *views, all_of_them in zip(*(part.u for part in parts), whole.u))
        assert all(torch.equal(torch.cat([part.draws[key] for part in parts]), value) for key, value in whole.draws.items())


def test_a_method_that_mixes_rows_and_a_batch_that_cannot_be_shared_are_refused(group):
    data = split(load("digits"), labels=20, seed=0)
    group(0, 2)
    with pytest.raises(InputError, match="MixMatch mixes the rows of a batch, it trains in one process"):
        set_up(MixMatch(), data, Config(batch_size=8).resolve(data, torch.device("cpu")))
    with pytest.raises(InputError, match="2 processes cannot share 7 labelled images a step"):
        Feed(data, FixMatch(), Config(batch_size=7).resolve(data, torch.device("cpu")))


def test_processes_that_cannot_meet_say_why(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="this machine has no GPU: give --device cpu"):
            processes.join("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="process 1 has no GPU: this machine has 1, .*start at most 1"):
        processes.join("cuda")
    with pytest.raises(InputError, match="each process has a GPU of its own: give --device cuda, not cuda:1"):
        processes.join("cuda:1")
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        with pytest.raises(InputError, match="cannot meet at 127.0.0.1.*another program uses this port; give torchrun another"):
            processes.join("cpu")


@pytest.mark.parametrize("flags, message", [
    (("mixmatch", "--processes", "2"), "mixmatch mixes the rows of a batch, it trains in one process: leave out --processes"),
    (("fixmatch", "--processes", "0"), "processes is 0, it must be at least 1"),
    (("fixmatch", "--processes", "2", "--batch-size", "7"), "2 processes cannot share 7 labelled images a step: take a --batch-size"),
    (("fixmatch", "--processes", "3"), "3 processes cannot share 32 labelled images a step"),
    (("fixmatch", "--processes", "1000", "--data", "imagefolder:/nowhere"), "1000 processes cannot share 64 labelled images"),
    (("fixmatch", "--processes", "two"), "invalid int value"),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_what_processes_cannot_do_is_a_sentence(flags, message, capsys):
    from sslkit.cli import main
    try:
        code = main(["train", *flags])
    except SystemExit as end:
        code = end.code
    assert code == 2 and message in capsys.readouterr().err


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "sslkit", "train", "simmatch", "--labels", "10", "--batch-size", "4", "--mu", "1", "--steps", "90",
            "--eval-every", "30", "--out", str(folder), *more]


def weights(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["student"]


def wait_for(condition, process, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    done = subprocess.run(command(folder, "--processes", "2"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_of_two_processes_is_stopped_and_resumed_to_the_bit_or_by_one(undisturbed, tmp_path):
    out = json.loads((undisturbed / "result.json").read_text())
    assert out["machine"]["processes"] == 2 and len((undisturbed / "metrics.jsonl").read_text().splitlines()) == 3
    folder = tmp_path / "run"
    process = subprocess.Popen(command(folder, "--processes", "2"), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130 and "continue with: sslkit train simmatch" in process.stderr.read()
    assert 30 <= torch.load(folder / "checkpoint.pt", weights_only=True)["step"] < 90
    alone = shutil.copytree(folder, tmp_path / "alone")
    done = subprocess.run(command(folder, "--processes", "2", "--resume"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(torch.equal(value, weights(undisturbed)[name]) for name, value in weights(folder).items())
    assert main(command(alone, "--resume")[3:]) == 0
    assert json.loads((alone / "result.json").read_text())["machine"]["processes"] == [1, 2]


def test_a_run_whose_other_process_is_gone_keeps_its_folder(digits, tmp_path, monkeypatch):
    def gone(*args, **how):
        raise Left("another process of this run has ended")
        yield

    monkeypatch.setattr("sslkit.training.run.train", gone)
    with pytest.raises(Left):
        fit(FixMatch(), digits, Config(steps=2), out=tmp_path / "run")
    assert (tmp_path / "run/config.json").exists()                     # so that --resume finds it


@pytest.mark.parametrize("recipe", [("fixmatch", "--hdl"), pytest.param(("kd-fixmatch",), marks=pytest.mark.slow)], ids=" ".join)
def test_two_processes_train_a_recipe(tmp_path, recipe):
    """The first one labels; all stages are runs of both."""
    words = ["--labels", "10", "--batch-size", "4", "--mu", "1", "--steps", "30", "--eval-every", "15", "--processes", "2", "--out"]
    done = subprocess.run([sys.executable, "-m", "sslkit", "train", *recipe, *words, tmp_path / "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stages = [json.loads(path.read_text()) for path in (tmp_path / "run").glob("*/result.json")]
    assert len(stages) == (3 if "--hdl" in recipe else 2) and all(stage["machine"]["processes"] == 2 for stage in stages)


def ranks(launcher: int) -> list[int]:
    """The processes that a launcher started, in order."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    return [int(pid) for pid in children.read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks into /proc")
@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_ends_the_run_with_a_sentence_and_the_same_command_goes_on(undisturbed, tmp_path, which):
    folder = tmp_path / "run"
    process = subprocess.Popen(command(folder, "--processes", "2"), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size, process)
    two = ranks(process.pid)
    os.kill(two[which], signal.SIGKILL)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1 and f"process {which} of the run was killed by SIGKILL" in text and "--resume" in text
    assert not any(Path(f"/proc/{pid}").exists() for pid in two)
    done = subprocess.run(command(folder, "--processes", "2", "--resume"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(torch.equal(value, weights(undisturbed)[name]) for name, value in weights(folder).items())


@pytest.mark.slow
def test_a_launcher_that_is_gone_takes_its_processes_along(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import sys; from sslkit.cli.launch import launch; sys.exit(launch(sys.argv[1:], 2))",
                                *command(tmp_path / "run", "--processes", "2")[3:]])
    wait_for(lambda: (tmp_path / "run/metrics.jsonl").exists() and (tmp_path / "run/metrics.jsonl").stat().st_size, process)
    two = ranks(process.pid)
    process.kill()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in two) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in two) and (tmp_path / "run/checkpoint.pt").exists()


def test_the_launcher_tells_the_error_of_whoever_failed(capfd):
    assert launch(["train", "fixmatch", "--data", "folder:/nowhere", "--processes", "2"], 2) == 2
    text = capfd.readouterr().err
    assert text.count("there is no folder /nowhere") == 1 and "Traceback" not in text


@pytest.mark.parametrize("first, second, code, text", [
    ("exit(69)", "print('Traceback', file=err); exit('ValueError: x')", 1, "process 1 of the run: ValueError: x"),
    ("sleep(60)", "print('sslkit: the loss is nan', 'a warning', sep='\\n', file=err); exit(1)", 1, "process 1 of the run: the loss is nan"),
    ("exit(69)", "os.kill(os.getpid(), 9)", 1, "process 1 of the run was killed by SIGKILL; if it had begun to train, the same command"),
    ("os.kill(os.getpid(), 9)", "exit(69)", 1, "process 0 of the run was killed by SIGKILL"), ("exit(0)", "sleep(1); exit(2)", 2, "it ended with code 2"),
    ("print('sslkit: no', file=err); exit(2)", "exit(69)", 2, "sslkit: no"), ("exit(0)", "sleep(1)", 0, ""), ("sleep(60)", "sleep(60)", 130, "stopped")])
def test_who_began_several_processes_says_why_one_failed(tmp_path, monkeypatch, capfd, first, second, code, text):
    """With a program in the place of sslkit that ends as each line of the list says."""
    (tmp_path / "sslkit").mkdir()
    (tmp_path / "sslkit/__init__.py").write_text("")
    (tmp_path / "sslkit/__main__.py").write_text("import os; from sys import exit, stderr as err; from time import sleep\n"
                                                 f"if os.environ['RANK'] == '0':\n    {first}\nelse:\n    {second}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sslkit.cli.launch.PATIENCE", 2)
    if code == 130:
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert launch([], 2) == code
    said = capfd.readouterr().err
    assert text in said and len(said.strip().splitlines()) == bool(text)


def test_processes_that_see_different_files_are_stopped(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("sslkit.training.run.wait", lambda number=0: number == 0)       # another process is at step 0
    config = Config(steps=4, batch_size=4, mu=1, eval_every=2)
    whole = fit(FixMatch(), digits, config, out=tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    with pytest.raises(InputError, match="do not see the same files in .*give an --out"):
        fit(FixMatch(), digits, config, out=tmp_path / "run")
    assert whole.checkpoint()["step"] == 4 and len(whole.metrics) == 2


def test_several_processes_are_for_gpus_of_nvidia_or_the_cpu(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="on GPUs of NVIDIA or on the CPU, not on mps: give --device cpu"):
        processes.join("mps")


def life(words: list[str], group: dict[str, str], errors: Path) -> None:
    """A process of a run, which saves it every tenth of a second."""
    os.environ |= group
    os.dup2(os.open(errors, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    run.CHECKPOINT_SECONDS = 0.1
    sys.exit(main(words))


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_a_run_that_is_killed_fifty_times_ends_with_the_same_weights(server, tmp_path, world):
    """SIGKILL of the run, or of one of its two processes, at random moments of its life; each time it is continued."""
    numbers, kills, steps, folder, whole = random.Random(0), 0, [0], tmp_path / "run", tmp_path / "whole"

    def started(where: Path, *more: str) -> list[BaseProcess]:
        group = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} if world > 1 else {}
        words = command(where, "--steps", "3000", "--eval-every", "5", "--threads", "1", *more)[3:]
        found = [server.Process(target=life, args=(words, group | ({"RANK": str(rank)} if group else {}), tmp_path / "errors"), daemon=True)
                 for rank in range(world)]
        for process in found:
            process.start()
        return found

    def ended(both: list[BaseProcess], seconds: float) -> list[int]:
        for process in both:
            process.join(seconds)
            process.kill()                                              # as the launcher does with one that is left alone
            process.join()
        return [process.exitcode for process in both]

    def saved_since(begin: float) -> bool:
        return (folder / "checkpoint.pt").exists() and (folder / "checkpoint.pt").stat().st_mtime > begin

    assert ended(started(whole), 900) == [0] * world
    while not (folder / "result.json").exists():
        both = started(folder, *["--resume"] * (folder / "config.json").exists())
        if kills < 50:
            begin, until = time.time(), time.monotonic() + 60 * (numbers.random() < 0.8)
            while not saved_since(begin) and time.monotonic() < until:      # most are killed while they train
                time.sleep(0.01)
            time.sleep(numbers.uniform(0, 0.5))
            kills += any(process.is_alive() for process in both)
            numbers.choice(both).kill()
        codes = ended(both, 5 if kills < 50 else 900)
        assert {*codes} <= {0, Left.exit_code, -signal.SIGKILL}, (codes, (tmp_path / "errors").read_text())
        if (folder / "metrics.jsonl").exists():
            steps.append(len((folder / "metrics.jsonl").read_text().splitlines()))
    assert "Traceback" not in (tmp_path / "errors").read_text()
    assert len({*steps}) > 20, "most were killed while they trained"
    assert kills == 50 and all(torch.equal(value, weights(whole)[name]) for name, value in weights(folder).items())
