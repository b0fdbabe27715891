"""Exercises: what counts as the answer, what a reader sees, with a viewer and without, and that nothing stops Run all."""
import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import nbclient
import nbformat
import numpy as np
import pytest
import torch
from ipywidgets import Button, Text, Textarea, ToggleButtons

from sslkit.batch.notebook_file import COURSE
from sslkit.errors import InputError
from sslkit.lessons import Exercise, exercise, exercises, guess_first, reveal
from sslkit.lessons import session as notebook
from sslkit.lessons.exercises.answers import judge, plain, written

FOLDER = Path(exercises.__file__).parent
LESSONS = {path.stem[-2:]: importlib.import_module(f"sslkit.lessons.exercises.{path.stem}").EXERCISES for path in sorted(FOLDER.glob("lesson_*.py"))}
EVERY = {name: each for lesson in LESSONS.values() for name, each in lesson.items()}
BANNED = re.compile(r"\b(told|heard|borne|at large|of ours|ever more|but for)\b", re.I)


# what counts as the answer

@pytest.mark.parametrize("text, answer, within", [
    ("0.4", 0.4, 0), ("0,4", 0.4, 0), ("40%", 0.4, 0), ("40 %", 0.4, 0), (" .40 ", 0.4, 0), ("about 0.41", 0.4, 0.01), ("4e-1", 0.4, 0),
    ("81", 81, 0), ("81.0", 81, 0), ("81 views", 81, 0), ("1,377", 1377, 0), ("40%", 40, 0), ("−3", -3, 0), ("it is 81.", 81, 0),
    ("0.63", np.float32(0.63), 1e-6), ("7", np.int64(7), 0), ("7", torch.tensor(7), 0), ("YES", True, 0), ("no.", np.bool_(False), 0),
    ("None", "none", 0), (" 'l_in' ", "l_in", 0), ("Mirror  left, to right", "mirror left to right", 0),
    ("30, 12", (30, 12), 0), ("30,12", (30, 12), 0), ("(30 12)", (30, 12), 0), ("0,5; 0,25", (0.5, 0.25), 0), ("9 and 81", torch.tensor([9, 81]), 0),
    ("9 3 4", {3, 4, 9}, 0), ("cat, dog", ("cat", "dog"), 0), ("dog, cat", {"cat", "dog"}, 0), ("9", [3, 9], 0), ("never", [0.3, "never"], 0)])
def test_right(text, answer, within):
    assert judge(text, answer, within) is True


@pytest.mark.parametrize("text, answer, within", [
    ("0.42", 0.4, 0.01), ("4", 0.4, 0), ("0.04", 0.4, 0), ("80", 81, 0), ("1.377", 1377, 0), ("no", True, 0), ("some", "none", 0), ("12, 30", (30, 12), 0),
    ("3 4", {3, 4, 9}, 0), ("dog, cat", ("cat", "dog"), 0), ("4", [3, 9], 0), ("1", 100, 0), ("100", 1, 0)])
def test_wrong(text, answer, within):
    assert judge(text, answer, within) is False


@pytest.mark.parametrize("text, answer, sentence", [
    ("forty", 0.4, "Please type a number, such as 12, 0.4 or 40%."), ("?", 3, "Please type a number"), ("nan", 3, "Please type a number"),
    ("3 or 4", 3, "Please type one number alone."), ("none", (1, 2), "Please type numbers, such as"), ("1 2 3", (1, 2), "Please type 2 numbers."),
    ("perhaps", True, "Please answer yes or no."), ("40", 0.4, "Is that in percent? Then type the sign too, as in 40%."), ("forty", [3, 9], "Please type a number")])
def test_an_answer_of_the_wrong_kind_is_no_wrong_answer(text, answer, sentence):
    assert judge(text, answer).startswith(sentence)


def test_answers_as_a_reader_would_write_them():
    assert [written(answer) for answer in (True, 81, 4 / 7, "none", (30, 12), {9, 3}, [3, "never"], torch.tensor(0.25), np.array([1, 2]))] == [
        "yes", "81", "0.5714", "none", "30, 12", "3, 9", "3 or never", "0.25", "1, 2"]


# what a reader sees

QUESTION = Exercise("How many?", answer=81, hint="Nine times nine.", why="It is a square.")


@pytest.fixture
def desk(monkeypatch):
    """A lesson 77 and its reader: desk.ask(exercise, **values) shows it as 77.1; shown: the places on the page, in order."""
    lesson = SimpleNamespace(EXERCISES={})
    shown = []

    class Place:
        def __init__(self, picture):
            self.data = picture
            shown.append(self)

        def update(self, picture, raw):
            self.data = picture

    def display(picture, raw=False, display_id=False):
        place = Place(picture)
        return place if display_id else None

    def ask(each, **values):
        lesson.EXERCISES["77.1"] = each
        shown.clear()
        exercise("77.1", **values)

    monkeypatch.setitem(__import__("sys").modules, "sslkit.lessons.exercises.lesson_77", lesson)
    monkeypatch.setattr(notebook, "display", display)
    monkeypatch.setattr(exercises, "display", display)
    monkeypatch.setattr(exercises, "ATTEMPTS", {})
    monkeypatch.delenv("SSLKIT_HEADLESS")

    def line(k=-1):
        return shown[k].data["text/markdown"]

    def widget(kind):
        boxes = [place.data for place in shown if not isinstance(place.data, dict)]
        return next(each for box in boxes for each in (box, *getattr(box, "children", ())) if isinstance(each, kind))

    def answer(text):
        widget(Text).value = text
        return line()

    return SimpleNamespace(ask=ask, line=line, widget=widget, answer=answer, shown=shown, lesson=lesson, check=lambda: widget(Button).click())


def test_right_is_green_with_the_reason_and_wrong_amber_without_the_answer(desk):
    desk.ask(QUESTION)
    assert desk.line(0) == "**Exercise 1.** How many?\n" and "81" not in str([place.data for place in desk.shown])
    wrong = desk.answer("80")
    assert "Not yet.</span> Try again." in wrong and exercises.AMBER in wrong and "81" not in wrong and "<details><summary>Hint" in wrong
    right = desk.answer("81")
    assert "Right.</span> It is a square." in right and exercises.GREEN in right and "Not yet" not in right


def test_two_wrong_tries_unfold_the_hint_four_offer_the_answer(desk):
    desk.ask(QUESTION)
    assert "<details open>" not in desk.answer("80")
    desk.check()                                                     # the same again is no new try, nor is a wrong kind of answer
    assert "<details open>" not in desk.line() and "Please type a number" in desk.answer("eighty")
    assert "<details open><summary>Hint" in desk.answer("82") and "The hint may help." in desk.line()
    assert "Answer" not in desk.answer("83") and "<summary>Answer</summary>\n\n**81.** It is a square." in desk.answer("84")


def test_attempts_survive_that_the_cell_runs_again(desk):
    desk.ask(QUESTION)
    desk.answer("80"), desk.answer("82")
    desk.ask(QUESTION)
    assert desk.widget(Text).value == "82" and "<details open>" in desk.line() and exercises.ATTEMPTS["77.1"].wrong == 2
    desk.answer("81")
    desk.ask(QUESTION)
    assert "Right." in desk.line()


def test_nothing_typed_and_nothing_chosen_get_a_sentence(desk):
    desk.ask(QUESTION)
    desk.check()
    assert desk.line().startswith("Type your answer first.") and exercises.ATTEMPTS["77.1"].wrong == 0
    desk.ask(Exercise("Which?", answer="b", choices=("a", "b"), why="So."))
    desk.check()
    assert desk.line().startswith("Choose one first.")


def test_choices_and_yes_or_no_have_buttons(desk):
    desk.ask(Exercise("Which?", answer="b", choices=("a", "b"), why="So."))
    buttons = desk.widget(ToggleButtons)
    assert buttons.options == ("a", "b") and buttons.value is None and buttons.description == "answer"
    buttons.value = "a"
    assert desk.line() == "", "a choice may still be changed: the button checks it"
    desk.check()
    assert "Not yet." in desk.line()
    desk.ask(Exercise("Which?", answer="b", choices=("a", "b"), why="So."))
    assert desk.widget(ToggleButtons).value == "a"
    exercises.ATTEMPTS.clear()
    desk.ask(Exercise("Does it?", answer=False, why="So."))
    assert desk.widget(ToggleButtons).options == ("yes", "no")
    desk.widget(ToggleButtons).value = "no"
    desk.check()
    assert "Right." in desk.line()


def test_a_computed_answer_is_computed_when_it_is_checked(desk):
    calls = []
    each = Exercise("How many?", answer=lambda p: calls.append(p) or len(p), hint="Count.", why="So.")
    desk.ask(each, p=[1, 2])
    assert not calls
    assert "Right." in desk.answer("2") and calls == [[1, 2]]


def test_an_answer_that_cannot_be_computed_stops_nothing(desk, monkeypatch):
    each = Exercise("How many?", answer=lambda p: 1 / p, hint="Count.", why="So.")
    desk.ask(each, p=0)
    assert "The answer needs the cells above" in desk.answer("2") and "ZeroDivisionError: division by zero" in desk.line()
    desk.ask(each)
    desk.answer("3")
    assert "TypeError" in desk.line() and exercises.ATTEMPTS["77.1"].wrong == 0
    monkeypatch.setenv("SSLKIT_HEADLESS", "1")
    desk.ask(each, p=0)
    assert "It could not be computed here (ZeroDivisionError" in desk.line()


def test_an_open_question_has_room_for_notes_and_a_fold(desk):
    desk.ask(Exercise("Why?", why="Because."))
    notes = desk.widget(Textarea)
    assert notes.description == "notes" and desk.line().strip() == "<details><summary>Answer</summary>\n\nBecause.\n\n</details>"
    notes.value = "I *think* so"
    desk.ask(Exercise("Why?", why="Because."))
    assert desk.widget(Textarea).value == "I *think* so"


def test_without_a_viewer_question_hint_and_answer_in_one_text(desk, monkeypatch):
    monkeypatch.setenv("SSLKIT_HEADLESS", "1")
    desk.ask(Exercise("Which?", answer=lambda **v: v["right"], choices=("a", "b"), hint="Look.", why="So."), right="b")
    assert desk.line() == ("**Exercise 1.** Which?\n\n- a\n- b\n\n<details><summary>Hint</summary>\n\nLook.\n\n</details>"
                           "\n\n<details><summary>Answer</summary>\n\n**b.** So.\n\n</details>")
    assert len(desk.shown) == 1 and "<" not in desk.shown[0].data["text/plain"]


def test_guess_first_and_reveal(desk, monkeypatch):
    desk.lesson.EXERCISES |= {"77.p": Exercise("How many?"), "77.p2": Exercise("Which?", choices=("up", "down"))}
    reveal("77.p", 12)
    assert desk.line() == "It is **12**."
    guess_first("77.p")
    assert desk.line(1) == "**Before you look.** How many?\n"
    entry = desk.widget(Text)
    assert entry.description == "I think" and entry.continuous_update
    entry.value = "40 <b>*or* $5"
    assert desk.line(0) == r"You said **40 \<b\>\*or\* \$5**. It is **12**.", "a guess after Run all shows too, as it was typed"
    desk.shown.clear()
    guess_first("77.p")
    assert desk.widget(Text).value == "40 <b>*or* $5"
    desk.shown.clear()
    guess_first("77.p2")
    desk.widget(ToggleButtons).value = "up"
    reveal("77.p2", "down")
    assert desk.line() == "You said **up**. It is **down**."
    reveal("nothing", torch.tensor(0.25))
    assert desk.line() == "It is **0.25**."
    monkeypatch.setenv("SSLKIT_HEADLESS", "1")
    desk.shown.clear()
    guess_first("77.p2")
    assert desk.line() == "**Before you look.** Which?\n\n- up\n- down" and len(desk.shown) == 1


@pytest.mark.parametrize("name", ["77.9", "98.1", "", "../../x"])
def test_an_unknown_exercise_is_named(desk, name):
    with pytest.raises(InputError, match="unknown exercise"):
        exercise(name)


# the exercises themselves

@pytest.mark.parametrize("name", EVERY)
def test_an_exercise_is_complete(name):
    each = EVERY[name]
    (lesson,) = [number for number, those in LESSONS.items() if name in those]
    assert re.fullmatch(rf"{lesson}\.(\d|p\d?)", name), "the id begins with the number of its module"
    prediction = name[3] == "p"
    assert each.question and (each.why or prediction)
    if each.answer is None:
        assert not (prediction and each.hint)
        return
    assert each.hint and not prediction, "what has an answer is an exercise, and has a hint"
    if not callable(each.answer):
        assert judge(written(each.answer), each.answer, each.within) is True, "the answer as we write it is right"
        assert each.choices is None or each.answer in each.choices
        assert isinstance(plain(each.answer), bool) or not each.hint.count(f" {written(each.answer)} "), "the hint is not the answer"


@pytest.mark.parametrize("name", EVERY)
def test_an_exercise_speaks_plainly(name):
    each = EVERY[name]
    for text in (each.question, each.hint, each.why, *(each.choices or ())):
        assert not BANNED.search(text), text
        assert text.count("$") % 2 == 0 and text.count("**") % 2 == 0 and text.count("`") % 2 == 0, text
    for text in filter(None, (each.question, each.hint, each.why)):
        assert text.strip()[-1] in ".?!)`$" and max(map(len, re.split(r"[.?!:]\s", text))) < 200, text


def test_lessons_ask_exercises_of_their_own_and_their_answers_are_computed():
    for path in sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb")):
        text = path.read_text()
        names = re.findall(r"\b(?:exercise|guess_first|reveal)\(\\\"([\w.]+)", text)
        assert all(name[:2] == path.stem[:2] and name in EVERY for name in names), path.name
        assert sorted(name for name in names if name[3] != "p") == sorted({name for name in names if name[3] != "p"}), "each once"
        assert "could not be computed here" not in text, path.name
        assert not names or {*names} == {*LESSONS[path.stem[:2]]}, f"{path.name} asks every exercise of its module"


# in a kernel

@pytest.mark.parametrize("watched", [True, False])
def test_in_a_kernel(watched, monkeypatch):
    if watched:
        monkeypatch.delenv("SSLKIT_HEADLESS")
    cells = ["from sslkit.lessons import exercise, guess_first, reveal\nfrom ipywidgets.widgets.widget import _instances", 'guess_first("00.p")',
             'exercise("01.1", unused=1)', 'reveal("00.p", 58)', 'exercise("01.1", unused=1)\nprint("goes on")']
    if watched:
        cells.insert(3, "entries = [w for w in _instances.values() if type(w).__name__ == 'Text']\nentries[0].value = '40'\nentries[1].value = 'eighty-one'")
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbclient.NotebookClient(lesson, timeout=60, kernel_name="python3").execute()
    outputs = [[output.get("data", output) for output in cell.outputs] for cell in lesson.cells]
    assert json.dumps(outputs).count("widget-view") == (3 if watched else 0)
    assert "Before you look" in outputs[1][0]["text/markdown"]
    if watched:
        assert "Please type a number" in outputs[2][2]["text/markdown"]
        assert outputs[4][0]["text/markdown"] == "You said **40**. It is **58**."
        assert "Please type a number" in outputs[5][2]["text/markdown"], "the attempt is kept"
    else:
        assert "**81.** A border" in outputs[2][0]["text/markdown"] and outputs[3][0]["text/markdown"] == "It is **58**."
    assert outputs[-1][-1]["text"] == "goes on\n"


def test_the_teachers_page_has_every_answer():
    page = (FOLDER.parents[2] / "notebooks" / "TEACH.md").read_text()
    assert page.endswith("## Answers\n\n" + teachers_answers())


def teachers_answers() -> str:
    """A line an exercise, in the course's order; `python tests/test_exercises.py` prints them."""
    lines = []
    for number in COURSE:
        for name, each in LESSONS[number].items():
            if not name.endswith("p"):
                answer = "" if each.answer is None or callable(each.answer) else f"**{written(each.answer)}.** "
                lines.append(f"- {name}: {answer}{each.why}\n")
    return "".join(lines)


if __name__ == "__main__":
    print(teachers_answers(), end="")
