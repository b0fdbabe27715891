"""The lessons' exercises. The modules lesson_00, lesson_01 ... hold questions, hints and answers by id; the cell of a
notebook names the id alone, exercise("01.1"), so that no reader sees the answer beside the question."""
import importlib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from IPython.display import DisplayHandle, display
from ipywidgets import Button, HBox, Text, Textarea, ToggleButtons, VBox

from sslkit.errors import choose
from sslkit.lessons.exercises.answers import judge, written
from sslkit.lessons.session import redraw, watched

WRONG_TO_HINT, WRONG_TO_ANSWER = 2, 4
GREEN, AMBER = "background:#dcfce7;color:#14532d", "background:#fef3c7;color:#713f12"


@dataclass(frozen=True)
class Exercise:
    """A question and what belongs to it, all texts Markdown.

    answer: as for answers.judge(); or a function of the values that the notebook's cell passes, called when the answer
    is needed; None for an open question and for a prediction. within: how far a number may be off.
    """
    question: str
    answer: object = None
    within: float = 0
    hint: str = ""
    why: str = ""
    choices: tuple[str, ...] | None = None

    def known(self, values: dict) -> object:
        return self.answer(**values) if callable(self.answer) else self.answer


@dataclass
class Attempt:
    """What a reader has entered, kept while the kernel runs: to run the cell again loses nothing."""
    text: str = ""
    checked: bool = False
    wrong: int = 0
    entered: Callable[[], object] = lambda: None


ATTEMPTS: dict[str, Attempt] = {}


def find(name: str) -> tuple[Exercise, Attempt]:
    """The exercise of this id and the attempts at it; InputError if there is none."""
    exercises = {}
    with suppress(ModuleNotFoundError):
        exercises = importlib.import_module(f"{__name__}.lesson_{name[:2]}").EXERCISES
    return exercises[choose("exercise", name, exercises)], ATTEMPTS.setdefault(name, Attempt())


def markdown(text: str, place: DisplayHandle | None = None) -> DisplayHandle:
    """Show Markdown, in the place of what is there or in a new one; readable where a viewer knows plain text alone."""
    return redraw(place, {"text/markdown": text, "text/plain": re.sub(r"</?\w[^>]*>", "", text)}, raw=True)


def fold(title: str, text: str, unfolded: bool = False) -> str:
    """A part to unfold; nothing for an empty text."""
    return f"\n\n<details{' open' * unfolded}><summary>{title}</summary>\n\n{text}\n\n</details>" if text else ""


def escaped(text: object) -> str:
    """Any text as Markdown that shows just that, in one line of at most 80 characters."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(str(text).split())[:80])


def asked(title: str, this: Exercise) -> str:
    """The question, with its choices where there are no buttons for them."""
    choices = this.choices if this.choices and not watched() else ()
    return f"**{title}.** {this.question}\n" + "".join(f"\n- {choice}" for choice in choices)


def solution(this: Exercise, values: dict) -> str:
    """The answer and why; a sentence if it cannot be computed."""
    try:
        return this.why if this.answer is None else f"**{written(this.known(values))}.** {this.why}"
    except Exception as error:                      # whatever a lesson passes: Run all goes on
        return f"It could not be computed here ({type(error).__name__}: {escaped(error)}). {this.why}"


def verdict(this: Exercise, values: dict, attempt: Attempt, again: bool) -> str:
    """The line under an exercise, and its hint. again: the text has been checked before, so it is no new try."""
    mark = "<span style='{};padding:2px 6px;border-radius:4px'>{}</span> {}".format
    try:
        right = judge(attempt.text, this.known(values), this.within)
    except Exception as error:
        right = ("The answer needs the cells above. Run them, then check again. "
                 f"({type(error).__name__}: {escaped(error)})")
    if right is True:
        return mark(GREEN, "Right.", this.why)
    attempt.wrong += right is False and not again
    hint = bool(this.hint) and attempt.wrong >= WRONG_TO_HINT
    said = right or ("The hint may help." if hint else "Try again.")
    return mark(AMBER, "Not yet.", said) + fold("Hint", this.hint, unfolded=hint) + (
        fold("Answer", solution(this, values)) if attempt.wrong >= WRONG_TO_ANSWER else "")


def field(this: Exercise, name: str, text: str, at_once: bool = False) -> Text | ToggleButtons:
    """Buttons for choices, else a line to type in. at_once: it has its value with each key, not with Enter."""
    look = {"description": name, "tooltip": name, "style": {"description_width": "initial"}}
    choices = ("yes", "no") if isinstance(this.answer, bool) else this.choices
    if choices:
        look["style"]["button_width"] = "auto"
        return ToggleButtons(options=choices, value=text if text in choices else None, **look)
    return Text(text, placeholder="type it here", continuous_update=at_once, **look)


def exercise(name: str, **values: object) -> None:
    """Ask the exercise of this id; InputError if there is none. values: what its answer is computed from.

    With a viewer a field, a button, a line that says right or not yet, and a hint; else question, hint and answer.
    """
    this, attempt = find(name)
    question, hint = asked(f"Exercise {name[3:]}", this), fold("Hint", this.hint)
    if not watched():
        markdown(question + hint + fold("Answer", solution(this, values)))
        return
    markdown(question)
    if this.answer is None:
        notes = Textarea(attempt.text, placeholder="room for your thoughts", description="notes", tooltip="notes",
                         style={"description_width": "initial"}, layout={"width": "95%"})
        notes.observe(lambda change: setattr(attempt, "text", change.new), "value")
        display(notes)
        markdown(hint + fold("Answer", this.why))
        return
    entry, button = field(this, "answer", attempt.text), Button(description="check", tooltip=f"check exercise {name}")
    typed = isinstance(entry, Text)

    def check(_: object = None) -> None:
        text = (entry.value or "").strip()
        if not text:
            markdown(("Type your answer first." if typed else "Choose one first.") + hint, place)
            return
        again, attempt.text, attempt.checked = attempt.checked and text == attempt.text, text, True
        markdown(verdict(this, values, attempt, again), place)

    display((HBox if typed else VBox)([entry, button]))
    place = markdown(hint)
    button.on_click(check)
    if typed:
        entry.observe(check, "value")               # Enter
    if attempt.checked:
        check()


def guess_first(name: str) -> None:
    """Ask for a guess before the reader sees the figure; reveal() says afterwards what it is."""
    this, attempt = find(name)
    markdown(asked("Before you look", this))
    if watched():
        entry = field(this, "I think", attempt.text, at_once=True)

        def note(change: object) -> None:
            attempt.text = (change.new or "").strip()
            attempt.entered()

        entry.observe(note, "value")
        display(entry)


def reveal(name: str, value: object) -> None:
    """Say what the reader predicted under this id, if anything, and what it is: a number or a text."""
    attempt, place = ATTEMPTS.setdefault(name, Attempt()), None

    def say() -> None:
        nonlocal place
        said = f"You said **{escaped(attempt.text)}**. " if attempt.text else ""
        place = markdown(f"{said}It is **{written(value)}**.", place)

    say()
    attempt.entered = say                           # so that a guess entered after Run all shows too
