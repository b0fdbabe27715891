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
from sslkit.lessons.session import watched

WRONG_TO_HINT, WRONG_TO_ANSWER = 2, 4
GREEN, AMBER = "background:#dcfce7;color:#14532d", "background:#fef3c7;color:#713f12"
ROOM = {"description_width": "initial"}


@dataclass(frozen=True)
class Exercise:
    """A question and what belongs to it, all texts Markdown.

    answer: as for answers.judge(); a function of the values that the notebook's cell passes, called when they are
    needed; None for an open question or a prediction. within: how far a number may be off.
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
    revealed: Callable[[], object] | None = None


ATTEMPTS: dict[str, Attempt] = {}


def find(name: str) -> Exercise:
    """The exercise of this id; InputError if there is none."""
    lesson = name.partition(".")[0]
    known = {}
    with suppress(ModuleNotFoundError):
        known = importlib.import_module(f"{__name__}.lesson_{lesson}").EXERCISES
    return known[choose("exercise", name, known)]


def markdown(text: str, place: DisplayHandle | None = None) -> DisplayHandle:
    """Show Markdown, in the place of what is there or in a new one; readable where a viewer knows plain text alone."""
    data = {"text/markdown": text, "text/plain": re.sub(r"</?\w[^>]*>", "", text)}
    if place is None:
        return display(data, raw=True, display_id=True)
    place.update(data, raw=True)
    return place


def headed(name: str, question: str) -> str:
    number = name.partition(".")[2]
    title = "Before you look" if number.startswith("p") else f"Exercise {number}"
    return f"**{title}.** {question}"


def fold(title: str, text: str, unfolded: bool = False) -> str:
    """A part to unfold; nothing for an empty text."""
    return f"\n\n<details{' open' * unfolded}><summary>{title}</summary>\n\n{text}\n\n</details>" if text else ""


def solution(this: Exercise, values: dict) -> str:
    """The answer and why; of one that cannot be computed, a sentence."""
    if this.answer is None:
        return this.why
    try:
        return f"**{written(this.known(values))}.** {this.why}"
    except Exception as error:                      # whatever the lesson's values are: Run all goes on
        return f"It could not be computed here ({type(error).__name__}: {escaped(str(error))}). {this.why}"


def verdict(this: Exercise, values: dict, attempt: Attempt, again: bool) -> str:
    """The line under an exercise, and its hint. again: the same text as before, which counts as no new try."""
    def line(style: str, word: str, text: str) -> str:
        return f"<span style='{style};padding:2px 6px;border-radius:4px'>{word}</span> {text}"

    try:
        right = judge(attempt.text, this.known(values), this.within)
    except Exception as error:
        return line(AMBER, "Not yet.", "The answer needs the cells above. Run them, then check again. "
                    f"({type(error).__name__}: {escaped(str(error))})") + fold("Hint", this.hint)
    if right is True:
        return line(GREEN, "Right.", this.why)
    attempt.wrong += right is False and not again
    hint = attempt.wrong >= WRONG_TO_HINT
    said = right or ("The hint may help." if hint and this.hint else "Try again.")
    return line(AMBER, "Not yet.", said) + fold("Hint", this.hint, unfolded=hint) + (
        fold("Answer", solution(this, values)) if attempt.wrong >= WRONG_TO_ANSWER else "")


def escaped(text: str) -> str:
    """What somebody typed as Markdown that shows just that, in one line of at most 60 characters."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split())[:60])


def field(this: Exercise, name: str, attempt: Attempt, live: bool = False) -> Text | ToggleButtons:
    choices = ("yes", "no") if isinstance(this.answer, bool) else this.choices
    if choices:
        return ToggleButtons(options=choices, value=attempt.text if attempt.text in choices else None, description=name,
                             style={"button_width": "auto", **ROOM})
    return Text(attempt.text, placeholder="type it here", description=name, style=ROOM, continuous_update=live)


def exercise(name: str, **values: object) -> None:
    """Ask the exercise of this id; InputError if there is none. values: what its answer is computed from.

    With a viewer a field, a button, a line that says right or not yet, and a hint; else question, hint and answer.
    """
    this, attempt = find(name), ATTEMPTS.setdefault(name, Attempt())
    question = headed(name, this.question)
    if not watched():
        listed = "".join(f"\n- {choice}" for choice in this.choices or ())
        markdown(question + ("\n" + listed) * bool(listed) + fold("Hint", this.hint)
                 + fold("Answer", solution(this, values)))
        return
    markdown(question)
    if this.answer is None:
        notes = Textarea(attempt.text, placeholder="room for your thoughts", description="notes", style=ROOM,
                         layout={"width": "95%"})
        notes.observe(lambda change: setattr(attempt, "text", change.new), "value")
        display(notes)
        markdown(fold("Hint", this.hint) + fold("What we would say", this.why))
        return
    entry, button = field(this, "answer", attempt), Button(description="check", tooltip=f"check exercise {name}")

    def check(_: object = None) -> None:
        text = (entry.value or "").strip()
        if not text:
            ask = "Choose one first." if isinstance(entry, ToggleButtons) else "Type your answer first."
            markdown(ask + fold("Hint", this.hint), place)
            return
        again, attempt.text, attempt.checked = attempt.checked and text == attempt.text, text, True
        markdown(verdict(this, values, attempt, again), place)

    display((VBox if isinstance(entry, ToggleButtons) else HBox)([entry, button]))
    place = markdown(fold("Hint", this.hint))
    button.on_click(check)
    if isinstance(entry, Text):
        entry.observe(check, "value")               # Enter; a click on the button finds the same text, which is no try
    if attempt.checked:
        check()


def predict(name: str) -> None:
    """Ask for a guess before the reader sees the figure; reveal() says afterwards what it is."""
    this, attempt = find(name), ATTEMPTS.setdefault(name, Attempt())
    markdown(headed(name, this.question))
    if watched():
        entry = field(this, "I think", attempt, live=True)

        def note(change: object) -> None:
            attempt.text = (entry.value or "").strip()
            if attempt.revealed:
                attempt.revealed()

        entry.observe(note, "value")
        display(entry)
    elif this.choices:
        markdown("\n".join(f"- {choice}" for choice in this.choices))


def reveal(name: str, value: object) -> None:
    """Say what the reader predicted under this id, if anything, and what it is. A number or a text."""
    attempt, place = ATTEMPTS.setdefault(name, Attempt()), None

    def say() -> None:
        nonlocal place
        said = f"You said **{escaped(attempt.text)}**. " if attempt.text else ""
        place = markdown(f"{said}It is **{written(value)}**.", place)

    say()
    attempt.revealed = say                          # who enters it after Run all sees it here too
