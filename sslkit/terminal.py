"""What the command line is made of: a parser that makes flags from a function's annotations, and one line of
progress."""
import argparse
import difflib
import inspect
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from sslkit.errors import InputError, choose


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that names the nearest flag when it does not know one."""

    def __init__(self, **options):
        style = lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=110)          # noqa: E731
        super().__init__(allow_abbrev=False, formatter_class=style, **options)

    def parse(self, argv: list[str]) -> argparse.Namespace:
        values, unknown = self.parse_known_args(argv)
        if unknown:
            word = unknown[0].split("=")[0]
            if not word.startswith("-"):
                self.error(f"unexpected word {word!r}")
            known = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
            self.error(f"unknown flag {word}" + (f": did you mean {near[0]}?" if near else ""))
        return values

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\nsee {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any):
        try:
            if action.choices is not None:
                choose("value", value, action.choices)
        except InputError as error:
            raise argparse.ArgumentError(action, str(error)) from error

    def add_parameters(self, function: Callable, title: str, leave_out: tuple[str, ...] = (), prefix: str = "") -> None:
        """A flag for each parameter of `function` (or dataclass), annotated Annotated[type, "help"]; none, no group."""
        hints = get_type_hints(function, include_extras=True)
        if not inspect.signature(function).parameters:
            return
        group = next((g for g in self._action_groups if g.title == title), None) or self.add_argument_group(title)
        if inspect.isclass(function):
            hints |= get_type_hints(function.__init__, include_extras=True)
        for name, parameter in inspect.signature(function).parameters.items():
            if name in leave_out:
                continue
            kind, text = get_args(hints[name])[:2] if get_origin(hints[name]) is Annotated else (hints[name], "")
            if isinstance(kind, UnionType):
                kinds = [one for one in get_args(kind) if one is not type(None)]
                kind = str if str in kinds else kinds[0]
            if "default" not in text:
                given = ("no", "yes")[parameter.default] if kind is bool else parameter.default
                text = f"{text[:-1]}; default: {given})" if text.endswith(")") else f"{text} (default: {given})"
            flag = "--" + (prefix + name).replace("_", "-")
            options = {"dest": prefix + name, "default": parameter.default, "help": text.replace("%", "%%")}
            if kind is bool:
                action = "store_true" if parameter.default is False else argparse.BooleanOptionalAction
                group.add_argument(flag, action=action, **options).help = options["help"]     # the second adds to it
            elif get_origin(kind) is Literal:
                group.add_argument(flag, choices=get_args(kind), **options)
            else:
                group.add_argument(flag, type=kind, metavar={int: "N", float: "X"}.get(kind, "TEXT"), **options)


def chosen(function: Callable, values: argparse.Namespace, prefix: str = "") -> dict[str, Any]:
    """The values for the parameters of `function`, whose flags begin with `prefix`."""
    return {name: getattr(values, prefix + name) for name in inspect.signature(function).parameters}


def aligned(table: list[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    """The rows of a table as lines; the columns `left` begin, the others end at the same place."""
    widths = [max(map(len, column)) for column in zip(*table)]
    def line(row: tuple[str, ...]) -> str:
        cells = (text.ljust(w) if k in left else text.rjust(w) for k, (text, w) in enumerate(zip(row, widths)))
        return "  ".join(cells).rstrip()

    return [line(row) for row in table]


def clock(seconds: float) -> str:
    """0:48 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


class ProgressLine:
    """One line that is rewritten on a terminal; elsewhere a line of its own every 10 seconds."""

    def __init__(self, steps: int, stream=None):
        self.stream, self.width, self.written = stream or sys.stderr, 0, 0.0
        self.live, self.loads = self.stream.isatty(), ("", 0, 0.0)     # what is loaded, how far it was at first, when
        self.start("", steps)

    def start(self, what: str, steps: int) -> None:
        """A run of `steps` steps begins."""
        self.end()
        self.what, self.steps, self.begin, self.first, self.acc = what, steps, time.monotonic(), None, None

    def write(self, text: str, last: bool = False) -> None:
        now = time.monotonic()
        if self.live:
            columns = os.get_terminal_size(self.stream.fileno()).columns or 80
            text = text if len(text) < columns else text.replace("  ", " ")
            text = text[:columns - 1]                            # a line that wraps cannot be rewritten
            self.stream.write("\r" + text.ljust(self.width) + ("\n" if last else ""))
            self.width = 0 if last else len(text)
        elif last or now - self.written > 10:
            self.stream.write(text + "\n")
        else:
            return
        self.written = now
        self.stream.flush()

    def end(self) -> None:
        """Go to a new line if one is being written."""
        if self.width:
            self.stream.write("\n")
            self.width = 0

    def loading(self, done: int, total: int, what: str) -> None:
        """How far something else is; from its second call on with its pace."""
        now, pace = time.monotonic(), 0.0
        if what != self.loads[0]:
            self.loads = what, done, now
        elif now > self.loads[2]:
            pace = (done - self.loads[1]) / (now - self.loads[2])
        left = f", {pace:,.0f} a second, {clock((total - done) / pace)} left" if pace >= 1 and done < total else ""
        self.write(f"{what} {done:,} of {total:,}{left}", last=done == total)

    def stage(self, what: str, steps: int, snap) -> None:
        """A Snapshot of one stage of several: its name before the first."""
        if what != self.what:
            self.start(what, steps)
            print(f"{what} network", file=self.stream)
        self(snap)

    def __call__(self, snap) -> None:
        m, now = snap.metrics, time.monotonic()
        self.first = self.first or (snap.step, now)
        self.acc = m.get("test_acc", self.acc)
        (step, then) = self.first if snap.step > self.first[0] else (min(0, snap.step - 1), self.begin)
        left = round((now - then) / (snap.step - step) * (self.steps - snap.step))
        share = lambda v: "  -  " if v is None else f"{v:5.1%}"                 # noqa: E731
        kept, right = share(m["mask_rate"]), share(m["pseudo_label_acc"])
        pseudo = "" if m["mask_rate"] is None else f"  kept {kept}  pseudo {right}"
        clock = (f"{left // 3600}:{left // 60 % 60:02}" if left >= 3600 else f"{left // 60}") + f":{left % 60:02}"
        self.write(f"step {snap.step:,}/{self.steps:,}  loss {m['loss']:.3f}{pseudo}  test {share(self.acc)}  {clock} "
                   "left",
                   last=snap.step == self.steps)


class Screen:
    """Some lines that are rewritten on a terminal; elsewhere the first of them, every 10 seconds."""

    def __init__(self, stream=None):
        self.stream, self.drawn, self.written = stream or sys.stderr, 0, -math.inf
        self.live = self.stream.isatty()
        self.pause = 0.5 if self.live else 10.0          # seconds between two pictures

    @property
    def height(self) -> int:
        return shutil.get_terminal_size().lines if self.live else 1

    def show(self, lines: list[str]) -> None:
        """`lines` in place of those shown before; none: take them away."""
        if not self.live:
            if lines and time.monotonic() - self.written >= self.pause:
                self.say(lines[0])
                self.written = time.monotonic()
            return
        columns = shutil.get_terminal_size().columns
        up = f"\x1b[{self.drawn}A" if self.drawn else ""
        self.stream.write(up + "\r\x1b[J" + "".join(line[:columns - 1] + "\n" for line in lines))
        self.stream.flush()
        self.drawn = len(lines)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.drawn:
            self.show([])
        self.stream.write(text + "\n")
        self.stream.flush()
