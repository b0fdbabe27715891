"""The command line as its users meet it: what is printed where, exit codes, and a sentence for everything that cannot be used."""
import inspect
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from PIL import Image

from sslkit import cli, methods
from sslkit import terminal as room
from sslkit.files import cannot_write
from sslkit.methods import FixMatch
from sslkit.training.config import Config, Machine
from sslkit.training.run import Run, Stopped, fit
from sslkit.training.runs import all_runs
from sslkit.training.spec import DataSpec

SHORT = ["--steps", "30", "--eval-every", "10", "--batch-size", "8", "--mu", "2", "--threads", "1", "--device", "cpu"]
DIRECT = [method for method in methods.ALL if method.standalone]
KEYS = ["method", "data", "labels", "seed", "steps", "test_acc", "test_acc_median20", "pseudo_label_acc", "mask_rate", "seconds", "run"]


def halt(words, monkeypatch, at=20):
    """Call `sslkit` and press Ctrl-C at step `at`."""
    line = room.ProgressLine.__call__

    def stop(self, snap):
        line(self, snap)
        if snap.step == at:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(room.ProgressLine, "__call__", stop)
        return cli.main([str(word) for word in words])


def pictures(folder, classes=("cat", "dog"), n=3, unlabeled=2):
    """A folder of small JPEGs of noise."""
    rng = np.random.default_rng(0)
    for part, names in (("train", classes), ("test", classes), ("unlabeled", [""])):
        for name in names:
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for k in range(n if name else unlabeled):
                Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(folder / part / name / f"{k}.jpg")
    return folder


# ---- training

@pytest.mark.parametrize("method", [m.__name__.lower() for m in DIRECT])
def test_one_line_of_json_comes_last(sslkit, runs, method):
    code, out, err = sslkit("train", method, *SHORT, "--seed", 3, "--json")
    assert code == 0 and out.count("\n") == 1
    result = json.loads(out, parse_constant=pytest.fail)
    assert list(result) == [*KEYS[:-1], "test_acc_class", "run"]
    assert (result["method"], result["data"], result["labels"], result["seed"], result["steps"]) == (method, "digits", 20, 3, 30)
    assert all(isinstance(result[k], float) and 0 <= result[k] <= 1 for k in ("test_acc", "test_acc_median20")) and result["seconds"] > 0
    shares = [result[k] for k in ("pseudo_label_acc", "mask_rate")]
    assert shares == [None, None] if method == "supervised" else isinstance(shares[1], float)
    assert Path(result["run"]).parent == runs and Run(result["run"]).metrics[-1]["test_acc"] == result["test_acc"]
    # where nobody watches, the progress is whole lines: the first, one in 10 seconds, the last
    lines = err.splitlines()
    assert "\r" not in err and re.match(r"step 10/30  loss \d", lines[0]) and lines[-2].startswith("step 30/30") and len(lines) <= 4
    assert ("kept" in lines[0]) == (method != "supervised")


def test_without_json_a_sentence_comes_last(sslkit, tmp_path):
    code, out, err = sslkit("train", "supervised", *SHORT, "--out", tmp_path / "run")
    assert code == 0 and re.fullmatch(rf"test accuracy \d+\.\d% \(median .*\), \d+ s, {tmp_path / 'run'}\n", out)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    code, again, err = sslkit("train", "supervised", *SHORT, "--out", tmp_path / "run")
    assert code == 0 and again == out and "finished already" in err
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()} == before


def test_flags_reach_the_run(sslkit, tmp_path):
    flags = {"tau": 0.8, "lambda-u": 0.5, "passes": "joint", "eman": True, "seed": 2, "steps": 2, "batch-size": 4, "mu": 1, "lr": 0.05, "momentum": 0.8,
             "weight-decay": 0.001, "ema-decay": 0.5, "bn-momentum": 0.2, "network": "small", "weights": "none", "strong": "mc",
             "eval-every": 1, "precision": "fp32", "schedule": "cosine", "warmup": 0.25}
    words = [part for name, value in flags.items() for part in ((f"--{name}", value) if value is not True else (f"--{name}",))]
    words += ["--labels", 40, "--validation", 100, "--no-include-labeled", "--out", tmp_path / "run"]
    code, _, err = sslkit("train", "fixmatch", *words)
    assert code == 0, err
    config = Run(tmp_path / "run").config
    kept = {**config["arguments"], **config["train"]}
    assert {name.replace("_", "-"): value for name, value in kept.items()} == flags
    assert config["data"]["labels"] == 40 and config["data"]["unlabeled"] == 1397 - 100 - 40


def test_a_folder_of_ones_own(sslkit, tmp_path):
    folder = pictures(tmp_path / "pets")
    (folder / "train" / "cat" / "notes.txt").write_text("mine")
    (folder / "train" / "dog" / "bad.jpg").write_bytes((folder / "train" / "dog" / "0.jpg").read_bytes()[:300])
    words = ["train", "fixmatch", "--data", f"folder:{folder}", "--labels", 4, "--size", 8, "--network", "small", *SHORT[2:],
             "--steps", 2, "--json"]
    code, out, err = sslkit(*words)
    assert code == 2 and str(folder / "train" / "dog" / "bad.jpg") in err and "--skip-bad-images" in err and out == ""
    code, out, err = sslkit(*words, "--skip-bad-images")
    assert code == 0 and json.loads(out)["data"] == f"folder:{folder}" and "/fixmatch-pets-4-s0-" in json.loads(out)["run"]
    assert "left out 1 files that are no images: " in err and "bad.jpg" in err and "left out 1 files of other kinds" in err


# ---- progress on a terminal

def terminal(words, folder, columns):
    """What `python -m sslkit` writes to a terminal `columns` wide."""
    import fcntl
    import pty
    import struct
    import termios
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([sys.executable, "-m", "sslkit", *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder)
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:                # Linux: the other end is closed
        pass
    finally:
        os.close(ours)
        code = process.wait(100)
    return code, text.decode().replace("\r\n", "\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_on_a_terminal_one_line_is_rewritten(tmp_path):
    code, text = terminal(["train", "fixmatch", *SHORT, "--out", "run"], tmp_path, 80)
    assert code == 0
    progress, last, rest = text.split("\n")
    first, *lines = progress.split("\r")
    assert first == "" and len(lines) == 3 and all(len(line) <= 79 for line in lines) and rest == ""
    shape = r"step (\d+)/30  loss \d+\.\d{3}  kept +\d+\.\d%  pseudo +(\d+\.\d%|-)  +test +\d+\.\d%  \d+:\d\d left *"
    assert [re.fullmatch(shape, line).group(1) for line in lines] == ["10", "20", "30"]
    assert last.startswith("test accuracy ")


class Tty:
    """A stream that says it is a terminal."""
    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def fileno(self):
        return 0

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_the_line_fits_the_terminal_and_tells_the_time_left(monkeypatch):
    from sslkit.records import Snapshot
    now, stream = [100.0], Tty()
    monkeypatch.setattr(room.os, "get_terminal_size", lambda number: os.terminal_size((60, 24)))
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    line = room.ProgressLine(1_048_576, stream)
    metrics = {"loss": 12.3456, "mask_rate": 0.5, "pseudo_label_acc": None}
    line(Snapshot(1, metrics, False, None, None))
    now[0] += 10
    line(Snapshot(101, {**metrics, "test_acc": 0.25}, True, None, None))
    first, second = stream.text.split("\r")[1:]
    assert len(first) <= 59 and len(second) <= 59
    monkeypatch.setattr(room.os, "get_terminal_size", lambda number: os.terminal_size((120, 24)))
    line(Snapshot(101, metrics, False, None, None))
    text = stream.text.split("\r")[-1]
    assert text == "step 101/1,048,576  loss 12.346  kept 50.0%  pseudo   -    test 25.0%  29:07:28 left"      # 10 steps a second
    line.end()
    assert stream.text.endswith("left\n")


def test_what_goes_wrong_is_said_on_a_line_of_its_own(monkeypatch, tmp_path):
    def full(run, metrics):
        if metrics["step"] == 20:
            raise cannot_write(run.path, OSError(28, "full"))

    monkeypatch.setattr(sys, "stderr", Tty())
    monkeypatch.setattr(room.os, "get_terminal_size", lambda number: os.terminal_size((120, 24)))
    monkeypatch.setattr(Run, "log", full)
    assert cli.main(["train", "supervised", *SHORT, "--out", str(tmp_path / "run")]) == 2
    assert re.fullmatch(r"\rstep 10/30 .* left\nsslkit: could not write .*\n", sys.stderr.text)


# ---- stopping and going on

def test_ctrl_c_says_how_to_go_on_and_that_very_command_does(sslkit, tmp_path, digits, monkeypatch):
    """A real process in mid-training; the resumed run equals one that was never stopped."""
    words = ["--steps", "200", "--eval-every", "10", "--batch-size", "8", "--mu", "2", "--threads", "1", "--device", "cpu",
             "--out", "my run"]
    process = subprocess.Popen([sys.executable, "-m", "sslkit", "train", "fixmatch", *words], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr.readline().startswith("step 10/200")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130 and out == "" and "Traceback" not in err, err
    stopped, again = err.splitlines()[-2:]
    step = int(re.fullmatch(r"stopped at step (\d+) of 200; my run can be continued from there", stopped).group(1))
    assert 10 <= step < 200 and Run(tmp_path / "my run").checkpoint()["step"] == step
    assert re.fullmatch(r"continue with: sslkit train fixmatch .*--out 'my run' --resume", again)
    monkeypatch.chdir(tmp_path)
    code, out, err = sslkit(*shlex.split(again.removeprefix("continue with: sslkit ")), "--json")
    assert code == 0, err
    whole = fit(FixMatch(), digits, Config(steps=200, eval_every=10, batch_size=8, mu=2), Machine("cpu", 1), out=tmp_path / "whole")
    plain = lambda run: [{**m, "seconds": 0} for m in run.metrics]            # noqa: E731
    assert plain(Run(tmp_path / "my run")) == plain(whole) and json.loads(out)["test_acc"] == whole.result["test_acc"]


def test_a_stopped_run_waits_for_resume(sslkit, refused, runs, monkeypatch, capsys):
    words = ["train", "fixmatch", *SHORT]
    assert halt(words, monkeypatch) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"continue with: sslkit {shlex.join([*words, '--resume'])}"
    (run,) = all_runs()
    before = {p: p.read_bytes() for p in run.path.iterdir()}
    refused(words, str(run.path), "holds a run that was stopped", "--resume", "--out")
    # another configuration in that folder is said to be one, whether to be resumed or not
    for more in ([], ["--resume"]):
        refused([*words, "--tau", 0.9, "--out", run.path, *more], "holds another configuration", "arguments.tau 0.95 -> 0.9")
    refused(["train", "fixmatch", "--labels", 40, *SHORT, "--resume"], "--resume: there is no run in", "sslkit runs")
    assert {p: p.read_bytes() for p in run.path.iterdir()} == before
    assert halt([*words, "--resume"], monkeypatch) == 0, "it was stopped after step 20 and shows 30 alone"
    assert [m["step"] for m in run.metrics] == [10, 20, 30] and run.result


def test_resume_with_nothing_there(refused, tmp_path, runs):
    refused(["train", "fixmatch", *SHORT, "--resume"], "--resume: there is no run in", str(runs))
    refused(["train", "fixmatch", *SHORT, "--resume", "--out", tmp_path / "nothing"], "there is no run in", str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_resume_after_a_kill_before_the_first_checkpoint(sslkit, runs, monkeypatch):
    """config.json is there and no checkpoint: nothing to lose, so it simply trains, with --resume and without."""
    for more in ([], ["--resume"]):
        assert halt(["train", "supervised", *SHORT], monkeypatch) == 130
        (run,) = all_runs()
        (run.path / "checkpoint.pt").unlink()
        assert sslkit("train", "supervised", *SHORT, *more)[0] == 0
        shutil.rmtree(run.path)


def test_ctrl_c_before_training_has_begun(sslkit, monkeypatch, runs):
    def interrupted(*args, **options):
        raise KeyboardInterrupt
    monkeypatch.setattr("sslkit.training.spec.load", interrupted)
    code, out, err = sslkit("train", "fixmatch", *SHORT)
    assert code == 130 and err == "\nstopped\n" and not runs.exists()


def test_a_full_disk_in_mid_training(sslkit, monkeypatch, tmp_path):
    monkeypatch.setattr(Run, "save", lambda run, state: (_ for _ in ()).throw(cannot_write(run.path, OSError(28, "full"))))
    code, out, err = sslkit("train", "fixmatch", *SHORT, "--out", tmp_path / "run")
    assert code == 2 and out == "" and err.splitlines()[-1] == f"sslkit: could not write {tmp_path / 'run'}: no space left on the disk"


def test_a_diverging_loss_is_a_sentence_and_exit_code_1(sslkit, runs):
    code, out, err = sslkit("train", "fixmatch", *SHORT, "--lr", "1e30")
    assert not list(runs.iterdir()), "nothing came of it"
    assert code == 1 and out == ""
    assert re.fullmatch(r"sslkit: the loss is (nan|inf) at step 10: try a smaller --lr than 1e\+30", err.strip())


# ---- bad input

@pytest.mark.parametrize("words, parts", [
    (["trian"], ["unknown command 'trian'", "did you mean 'train'?"]),
    (["train", "fixmach"], ["unknown method 'fixmach'", "did you mean 'fixmatch'?"]),
    (["train", "dash", "--gamma", "1"], ["gamma is 1, it must be a finite number above 1"]),
    (["train", "comatch", "--queue-batch", "0"], ["queue_batch is 0, it must be from 1 to 10000"]),
    (["train", "vat", "--eps", "0"], ["eps is 0, it must be a finite number above 0"]),
    (["train", "vat", "--kl", "revers"], ["did you mean 'reverse'"]),
    (["train", "uda", "--tsa", "quick"], ["known: none, linear, exp, log"]),
    (["train", "mixmatch", "--ramp", "2"], ["ramp is 2, it must lie between 0 and 1"]),
    (["train", "meanteacher", "--encoder", "timm:resnet18", "--views", "2"], ["compares two weak views", "--views 6"]),
    (["train", "kdfixmatch"], ["unknown method 'kdfixmatch'", "known: supervised, pimodel, pseudolabel"]),
    (["train", "kd-fixmatch", "--tau-select", "1.5"], ["tau_select is 1.5", "between 0 and 1"]),
    (["train", "kd-fixmatch", "--clustering", "kmean"], ["--clustering", "did you mean 'kmeans'?"]),
    (["train", "kd-fixmatch", "--loss", "sec"], ["--loss", "did you mean 'sce'?"]),
    (["train", "kd-fixmatch", "--outer", "nowhere"], ["nowhere is not finished"]),
    (["train", "kd-fixmatch", "--resume"], ["--resume: there is no run in"]),
    (["train", "fixmatch", "--data", "digit"], ["unknown data set 'digit'", "did you mean 'digits'?"]),
    (["train", "fixmatch", "--data", "cifar-10"], ["unknown data set", "did you mean 'cifar10'?"]),
    (["train", "fixmatch", "--strong", "smal"], ["unknown strong view 'smal'", "did you mean 'small'?"]),
    (["train", "fixmatch", "--network", "wrn28-2"], ["unknown network 'wrn28-2'", "did you mean 'wrn-28-2'?"]),
    (["train", "fixmatch", "--network", "wrn-29-2"], ["depth", "29"]),
    (["train", "fixmatch", "--lables", "40"], ["unknown flag --lables", "did you mean --labels?"]),
    (["train", "fixmatch", "--lables=40"], ["unknown flag --lables", "did you mean --labels?"]),
    (["train", "supervised", "--tau", "0.9"], ["unknown flag --tau"]),
    (["train", "fixmatch", "--ta", "0.9"], ["unknown flag --ta", "--tau?"]),
    (["train", "fixmatch", "40"], ["unexpected word '40'"]),
    (["runs", "--jsn"], ["unknown flag --jsn", "did you mean --json?"]),
    (["runs", "--store", "/nowhere/at/all"], ["there is no folder /nowhere/at/all"]),
    (["train", "fixmatch", "--passes", "joit"], ["--passes", "'joit'", "did you mean 'joint'?"]),
    (["train", "fixmatch", "--precision", "fp16"], ["--precision", "'fp16'", "fp32"]),
    (["train", "fixmatch", "--device", "cudda"], ["unknown device 'cudda'", "did you mean 'cuda'?"]),
    (["train", "fixmatch", "--device", "cuda:99"], ["device 'cuda:99' is not here"]),
    (["train", "fixmatch", "--labels", "0"], ["labels must be above 0"]),
    (["train", "fixmatch", "--labels", "-10"], ["labels must be above 0", "-10"]),
    (["train", "fixmatch", "--labels", "15"], ["multiple of the 10 classes", "15", "10 or 20"]),
    (["train", "fixmatch", "--labels", "1000000"], ["1000000", "at most"]),
    (["train", "fixmatch", "--labels", "abc"], ["--labels", "'abc'"]),
    (["train", "fixmatch", "--labels", "20.5"], ["--labels", "'20.5'"]),
    (["train", "fixmatch", "--labels"], ["--labels", "expected one argument"]),
    (["train", "fixmatch", "--imbalance", "0.5"], ["imbalance is 0.5", "-1 or less"]),
    (["train", "fixmatch", "--imbalance", "20", "--labels", "1000"], ["need 295 images of class '0', which has 138"]),
    (["train", "fixmatch", "--unlabeled-imbalance", "nan"], ["unlabeled_imbalance is nan"]),
    (["train", "fixmatch", "--unlabeled", "99999"], ["unlabeled must be from 1 to 1,320"]),
    (["train", "fixmatch", "--imbalnce", "20"], ["unknown flag --imbalnce", "did you mean --imbalance?"]),
    (["train", "fixmatch", "--tau", "1.5"], ["tau is 1.5", "between 0 and 1"]),
    (["train", "fixmatch", "--tau", "-0.1"], ["tau is -0.1", "between 0 and 1"]),
    (["train", "fixmatch", "--tau", "nan"], ["tau is nan"]),
    (["train", "fixmatch", "--lambda-u", "-1"], ["lambda_u is -1"]),
    (["train", "simmatch", "--alpha", "1.5"], ["alpha is 1.5", "between 0 and 1"]),
    (["train", "simmatch", "--alpha", "-0.1"], ["alpha is -0.1", "between 0 and 1"]),
    (["train", "simmatch", "--t", "0"], ["t is 0", "above 0"]),
    (["train", "simmatch", "--t", "-0.1"], ["t is -0.1", "above 0"]),
    (["train", "simmatch", "--memory", "teachr"], ["--memory", "did you mean 'teacher'?"]),
    (["train", "simmatch", "--da-length", "0"], ["da_length is 0", "from 1 to 10000"]),
    (["train", "simmatch", "--bank-momentum", "2"], ["bank_momentum is 2", "between 0 and 1"]),
    (["reproduce", "--timeout", "0"], ["timeout is 0", "above 0"]),
    (["train", "fixmatch", "--steps", "0"], ["steps is 0", "at least 1"]),
    (["train", "fixmatch", "--steps", "1e4"], ["--steps", "'1e4'"]),
    (["train", "fixmatch", "--batch-size", "0"], ["batch_size is 0", "at least 1"]),
    (["train", "fixmatch", "--mu", "0"], ["mu is 0", "at least 1"]),
    (["train", "fixmatch", "--eval-every", "0"], ["eval_every is 0", "at least 1"]),
    (["train", "fixmatch", "--lr", "0"], ["lr is 0", "above 0"]),
    (["train", "fixmatch", "--lr", "-1"], ["lr is -1", "above 0"]),
    (["train", "fixmatch", "--lr", "nan"], ["lr is nan", "above 0"]),
    (["train", "fixmatch", "--lr", "inf"], ["lr is inf", "finite"]),
    (["train", "fixmatch", "--weight-decay", "-1"], ["weight_decay is -1"]),
    (["train", "fixmatch", "--momentum", "1.5"], ["momentum is 1.5"]),
    (["train", "fixmatch", "--ema-decay", "2"], ["ema_decay is 2", "from 0 up and below 1"]),
    (["train", "fixmatch", "--bn-momentum", "-1"], ["bn_momentum is -1", "between 0 and 1"]),
    (["train", "fixmatch", "--threads", "0"], ["threads is 0", "at least 1"]),
    (["train", "fixmatch", "--seed", "-1"], ["seed", "-1"]),
    (["train", "fixmatch", "--seed", "4294967296"], ["seed", "4294967295"]),
    (["train", "fixmatch", "--validation", "100000"], ["validation", "100000"]),
    (["train", "fixmatch", "--validation", "-1"], ["validation", "-1"]),
    (["train", "fixmatch", "--size", "16"], ["digits has 8 pixels a side", "size is for folders"]),
    (["train", "fixmatch", "--crop", "9"], ["crop is 9", "from 8 to 8, the side of the images as loaded"]),
    (["train", "fixmatch", "--data", "folder:/nowhere", "--size", "256", "--crop", "257"], ["crop is 257", "from 8 to 256"]),
    (["train", "fixmatch", "--data", "cifar10", "--crop", "7"], ["crop is 7", "from 8 to 32"]),
    (["train", "fixmatch", "--data", "cifar10", "--crop", "16.5"], ["--crop", "'16.5'"]),
    (["train", "fixmatch", "--encoder", "efficientnet-lite0", "--crop", "32"], ["--crop is for pixels", "leave out --crop or --encoder"]),
    (["train", "fixmatch", "--labeled-list", "/nowhere/at/all"], ["the list '/nowhere/at/all' cannot be read"]),
    (["train", "fixmatch", "--labeled-list", ""], ["the list '' cannot be read"]),
    (["train", "fixmatch", "--labeled-list", "x", "--labels", "40"], ["leave out --labels and --imbalance"]),
    (["train", "fixmatch", "--data", "imagefolder:"], ["imagefolder:PATH", "train/<class>/* and val/<class>/*"]),
    (["train", "fixmatch", "--data", "imagefolder:/nowhere/at/all"], ["there is no folder /nowhere/at/all"]),
    (["train", "fixmatch", "--data", "imagefolde:x"], ["did you mean 'imagefolder:PATH'?"]),
    (["train", "fixmatch", "--weights", "imagenet"], ["no imagenet weights for small"]),
    (["train", "fixmatch", "--data", "folder:/nowhere/at/all", "--steps", "0"], ["steps is 0"]),       # before anything is loaded
    (["train", "fixmatch", "--data", "folder:"], ["folder:PATH"]),
    (["train", "fixmatch", "--data", "folder:/nowhere/at/all"], ["there is no folder /nowhere/at/all"]),
], ids=lambda value: " ".join(value) if isinstance(value, list) and value[0] in ("train", "runs", "trian") else "")
def test_bad_input_is_refused(refused, words, parts):
    refused(words, *parts)


def without(folder, path):
    shutil.rmtree(folder / path)


FOLDERS = {
    "empty": (lambda f: [without(f, part) for part in ("train", "test", "unlabeled")], ["has no train/"]),
    "no test": (lambda f: without(f, "test"), ["has no test/"]),
    "one class": (lambda f: [without(f, "train/dog"), without(f, "test/dog")], ["1 class folders", "at least 2"]),
    "a class without images": (lambda f: [p.unlink() for p in (f / "train" / "dog").iterdir()], ["train/dog", "holds no images"]),
    "class names that differ": (lambda f: (f / "test" / "dog").rename(f / "test" / "dogs"), ["the same classes", "only in train/: dog"]),
    "a truncated image": (lambda f: os.truncate(f / "test" / "cat" / "1.jpg", 300), ["test/cat/1.jpg", "--skip-bad-images"]),
    "no image": (lambda f: (f / "unlabeled" / "0.jpg").write_text("hello"), ["unlabeled/0.jpg", "--skip-bad-images"]),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_that_is_no_data_set_is_refused(refused, tmp_path, what):
    folder = pictures(tmp_path / "pets")
    damage, parts = FOLDERS[what]
    damage(folder)
    refused(["train", "fixmatch", "--data", f"folder:{folder}", "--labels", 2, *SHORT], *parts)


def test_a_size_nobody_can_want_is_refused(refused, tmp_path):
    refused(["train", "fixmatch", "--data", f"folder:{pictures(tmp_path / 'pets')}", "--size", "0", "--labels", "2"], "size", "0")


def test_a_download_that_was_not_asked_for_or_fails(refused, tmp_path, monkeypatch):
    refused(["train", "fixmatch", "--data", "cifar10", "--root", tmp_path], "cifar10 is not in", "--download")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")          # nobody listens: as without a network, on every machine
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr("urllib.request._opener", None)         # it keeps the proxies of its first use, for every later test
    refused(["train", "fixmatch", "--data", "cifar10", "--root", tmp_path, "--download"], "could not download cifar10")


def test_an_out_that_cannot_be_used(refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    words = ["train", "supervised", *SHORT, "--out"]
    refused([*words, tmp_path / "file"], str(tmp_path / "file"), "is a file")
    refused([*words, tmp_path / "file" / "run"], str(tmp_path / "file"))
    refused([*words, tmp_path / ("long" * 100)], "long")
    refused([*words, tmp_path / "full"], str(tmp_path / "full"), "thesis.tex", "give another --out")
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")} - {"runs"} == {"file", "full", "full/thesis.tex"}


def test_an_out_that_holds_another_configuration(sslkit, refused, tmp_path):
    words = ["train", "supervised", *SHORT, "--out", tmp_path / "run"]
    assert sslkit(*words)[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    refused([*words, "--lr", "0.3"], str(tmp_path / "run"), "holds another configuration", "train.lr 0.1 -> 0.3")
    assert {p: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("words, message", [
    ("--out=", "--out is empty"), ("--hdl-k 5", "belong to --hdl: add it"), ("--momentum 1", "from 0 up and below 1"),
    ("--ema-decay 1", "from 0 up and below 1"), ("--device cpu:7", "only cuda devices have a number"),
    ("--steps 99999999999999999999", "it must be at most"), ("--threads 999999", "it must be at most 4096"),
    (f"--steps 2 --out {'x' * 400}", "File name too long")])
def test_doubtful_input_is_refused_in_a_sentence(words, message, refused):
    refused(["train", "fixmatch", *words.split()], message)


def test_an_outer_run_without_a_name_is_refused(refused):
    refused(["train", "kd-fixmatch", "--outer", ""], "--outer is empty")


def test_a_step_of_very_many_views_is_said_before_it_is_waited_for(sslkit, monkeypatch):
    monkeypatch.setattr("sslkit.cli.one_run.MANY_VIEWS", 50)
    code, _, err = sslkit("train", "fixmatch", *SHORT, "--batch-size", "20")
    assert code == 0 and "note: a step makes 100 views, 0.0 GB before the network" in err


# ---- help

def test_every_parameter_has_a_flag_that_is_explained(sslkit):
    helps = {}                                             # of each flag of each method
    for method in (m.__name__.lower() for m in DIRECT):
        code, out, err = sslkit("train", method, "--help")
        assert code == 0 and err == ""
        parts = re.split(r"\n  (?=-)", out.split("\n\n", 1)[1])
        helps[method] = {part.split()[0].rstrip(","): " ".join(part.split("\n\n")[0].split()) for part in parts}
    for owner in (DataSpec, Config, Machine, *DIRECT):
        hints = get_type_hints(owner.__init__ if owner in DIRECT else owner, include_extras=True)
        for name, parameter in inspect.signature(owner).parameters.items():
            what, default, hint = f"{owner.__name__}.{name}", parameter.default, hints[name]
            assert get_origin(hint) is Annotated and len(get_args(hint)[1]) > 15, what
            text = helps[owner.__name__.lower() if owner in DIRECT else "fixmatch"]["--" + name.replace("_", "-")]
            assert re.search(r"\bdefault\b", text), what
            if default is not None and not isinstance(default, bool):
                shown = f"{default:g}" if isinstance(default, float) else default
                assert re.search(rf"default[^;]*[ (:]{shown}\b", text), f"{what}: {text}"
            assert "paper" in text or owner in (DataSpec, Machine), what


def test_help_and_version(sslkit):
    from sslkit import __version__
    code, out, err = sslkit("--help")
    assert code == 0 and err == "" and all(f"  {command}" in out for command in cli.COMMANDS)
    assert sslkit()[0] == 2 and sslkit("train")[0] == 2
    code, out, err = sslkit("train", "--help")
    assert code == 0 and all(m.__name__.lower() in out for m in DIRECT)
    assert sslkit("--version") == (0, f"{__version__}\n", "")
    for command in ("runs", "reproduce"):
        code, out, err = sslkit(command, "--help")
        assert code == 0 and f"usage: sslkit {command}" in out


# ---- sslkit runs

def test_runs_tell_the_stage_of_an_unfinished_recipe(sslkit, runs, monkeypatch):
    assert halt(["train", "supervised", "--hdl", *SHORT], monkeypatch) == 130
    (row,) = (json.loads(line) for line in sslkit("runs", "--json")[1].splitlines())
    assert (row["method"], row["stage"], row["step"], row["steps"], row["finished"]) == ("supervised+hdl", "base", 20, 30, False)
    assert sslkit("runs")[1].splitlines()[1].split()[4:6] == ["base", "20/30"]
    assert sslkit("train", "supervised", "--hdl", *SHORT, "--resume")[0] == 0
    (row,) = (json.loads(line) for line in sslkit("runs", "--json")[1].splitlines())
    assert (row["stage"], row["step"], row["steps"], row["finished"]) == ("", 30, 30, True)


def test_runs_newest_first_with_the_unfinished(sslkit, runs, monkeypatch):
    assert sslkit("runs") == (0, f"no runs in {runs} yet; `sslkit train fixmatch` makes one\n", "")
    assert sslkit("runs", "--json") == (0, "", "")
    assert sslkit("train", "supervised", *SHORT)[0] == 0
    time.sleep(0.02)
    assert halt(["train", "fixmatch", *SHORT], monkeypatch) == 130
    (runs / "damaged").mkdir()
    (runs / "damaged" / "config.json").write_text("[]")
    (runs / "strange").mkdir()
    (runs / "strange" / "config.json").write_text('{"method": 3}')

    code, out, err = sslkit("runs", "--json")
    first, second = (json.loads(line, parse_constant=pytest.fail) for line in out.splitlines())
    assert code == 0 and (first["method"], first["finished"], first["step"]) == ("fixmatch", False, 20)
    assert (second["method"], second["finished"], second["step"]) == ("supervised", True, 30)
    assert set(KEYS) < set(first) and first["test_acc_median20"] is None and first["mask_rate"] is not None
    assert {k: second[k] for k in KEYS[:-1]} == {k: v for k, v in Run(second["run"]).result.items() if k in KEYS}
    assert [line.split()[1] for line in sorted(err.splitlines())] == [f"{runs / 'damaged'}", f"{runs / 'strange'}"]

    newest = first["run"]
    code, out, _ = sslkit("runs")
    head, first, second = out.splitlines()
    assert head.split()[:5] == ["method", "data", "labels", "seed", "steps"]
    assert first.split()[:5] == ["fixmatch", "digits", "20", "0", "20/30"] and first.endswith(f"  {newest}")
    assert second.split()[:5] == ["supervised", "digits", "20", "0", "30"]
    assert sslkit("runs", "--store", runs)[1] == out


def test_runs_into_a_pipe_that_closes(runs, tmp_path):
    (runs / "a").mkdir(parents=True)
    done = subprocess.run(f"{shlex.quote(sys.executable)} -m sslkit runs | true", shell=True, capture_output=True, text=True,
                          env={**os.environ, "PYTHONUNBUFFERED": ""})
    assert done.stderr == ""


def test_stopped_is_a_keyboard_interrupt():
    assert issubclass(Stopped, KeyboardInterrupt), "so that a notebook stops as it does for Ctrl-C"


# ---- recipes

KD = ["train", "kd-fixmatch", *SHORT, "--clustering", "kmeans", "--tau-select", "0.3"]


def test_kd_fixmatch_from_the_command_line(sslkit, runs, monkeypatch):
    code, out, err = sslkit(*KD, "--json")
    result = json.loads(out)
    assert code == 0 and [key for key in KEYS if key not in result] == [] and result["method"] == "kd-fixmatch"
    assert result["trusted"]["clustering"] == "kmeans" and result["trusted"]["confident"]["rows"] >= result["trusted"]["trusted"]["rows"]
    assert "outer network" in err and "inner network" in err and "of them trusted" in err
    code, out, err = sslkit(*KD, "--json")
    assert code == 0 and "finished already" in err and json.loads(out) == result
    code, out, _ = sslkit("runs", "--json")
    assert [json.loads(line)["method"] for line in out.splitlines()] == ["kd-fixmatch"]

    outer = Path(result["run"]) / "outer"
    code, out, err = sslkit(*KD, "--json", "--outer", outer)
    again = json.loads(out)
    assert code == 0 and again["run"] != result["run"] and again["trusted"] == result["trusted"] and "outer network" not in err
    code, _, err = sslkit(*KD, "--outer", outer, "--seed", 1)
    assert code == 2 and "another data set or split" in err
    code, _, err = sslkit(*KD, "--outer", outer, "--outer-network", "wrn-10-1")
    assert code == 2 and "--outer-network has no meaning" in err


def test_kd_fixmatch_with_an_outer_network_of_another_kind(sslkit, runs):
    code, out, err = sslkit("train", "kd-fixmatch", "--steps", 2, "--batch-size", 4, "--mu", 1, "--outer-network", "wrn-10-1", "--json")
    run = Run(json.loads(out)["run"])
    assert code == 0 and Run(run.path / "outer").config["train"]["network"] == "wrn-10-1" and run.config["train"]["network"] == "small"
    code, _, err = sslkit("train", "kd-fixmatch", "--outer-network", "wrn-11-1")
    assert code == 2 and "depth" in err


def test_kd_fixmatch_is_stopped_and_goes_on(sslkit, runs, monkeypatch):
    line, seen = room.ProgressLine.__call__, []

    def stop(self, snap):
        line(self, snap)
        seen.append(snap.step)
        if len(seen) > 3 and snap.step == 20 and seen.count(20) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(room.ProgressLine, "__call__", stop)
    code, out, err = sslkit(*KD)
    assert code == 130 and "/inner can be continued" in err and "continue with: sslkit train kd-fixmatch" in err and "--resume" in err
    code, _, err = sslkit(*KD)
    assert code == 2 and "--resume continues it" in err
    monkeypatch.setattr(room.ProgressLine, "__call__", line)
    code, out, err = sslkit(*KD, "--resume")
    assert code == 0 and "outer network" not in err and "test accuracy" in out


def test_hdl_on_a_method_from_the_command_line(sslkit, runs):
    words = ["train", "freematch", *SHORT, "--hdl", "--hdl-k", 5]
    code, out, err = sslkit(*words, "--json")
    result = json.loads(out)
    assert code == 0 and [key for key in KEYS if key not in result] == [] and result["method"] == "freematch+hdl"
    assert all(f"{name} network" in err for name in ("base", "control", "hdl"))
    assert "labels by HDL, k 5" in err and "test accuracy before" in err
    code, out, err = sslkit(*words, "--json")
    assert code == 0 and "finished already" in err and json.loads(out) == result
    wrong = ("--hdl-k", "x", "k is 'x'"), ("--hdl-k", 5000, "only 1397"), ("--hdl-mode", "exac", "did you mean 'exact'")
    for flag, value, message in wrong:
        code, _, err = sslkit("train", "freematch", *SHORT, "--hdl", flag, value)
        assert code == 2 and message in err


def test_a_long_tail_from_the_command_line(sslkit, runs):
    words = ["train", "fixmatch", *SHORT, "--imbalance", 20, "--unlabeled-imbalance", -20, "--json"]
    code, out, err = sslkit(*words)
    result = json.loads(out)
    assert code == 0 and "images of each class, labelled 5 4 3 2 1 1 1 1 1 1; unlabelled 11 13 16" in err
    assert len(result["test_acc_class"]) == 10 and sum(result["test_acc_class"]) / 10 == pytest.approx(result["test_acc"])
    assert result["test_acc_tail"] == pytest.approx(sum(result["test_acc_class"][7:]) / 3) and ", tail " in err
    run = Run(result["run"])
    assert run.config["data"]["imbalance"] == [20, -20] and "test_acc_head" in run.metrics[-1]


def test_loading_has_its_pace(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return False

    now, stream = [100.0], Terminal()
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    line = room.ProgressLine(0, stream)
    for done in (64, 164, 264, 1000):
        line.loading(done, 1000, "embedding pictures")
        now[0] += 20
    assert stream.getvalue().splitlines() == [
        "embedding pictures 64 of 1,000", "embedding pictures 164 of 1,000, 5 a second, 2:47 left",
        "embedding pictures 264 of 1,000, 5 a second, 2:27 left", "embedding pictures 1,000 of 1,000"]
