"""Look at many guesses at once, and correct the wrong ones."""
from html import escape

import torch
from IPython.display import display
from ipywidgets import HTML, Box, Button, Dropdown, HBox, VBox
from PIL import Image

from sslkit.data import Mark
from sslkit.errors import InputError
from sslkit.labelers import interval
from sslkit.lessons.photos import Photos
from sslkit.lessons.session import watched
from sslkit.lessons.widgets.labeling import ROW, as_html
from sslkit.records import PseudoLabels

PAGE = 24
ORDERS = {"surest first": 1, "least sure first": -1}


class Reviewing:
    """A page of small pictures, each with its guess in a list of classes: another choice there is a correction."""

    def __init__(self, photos: Photos, found: PseudoLabels):
        self.photos, self.found, self.rows = photos, found, []
        self.order = Dropdown(options=list(ORDERS), description="order", tooltip="order")
        self.only = Dropdown(options=["all classes", *photos.classes], description="guess", tooltip="guess")
        self.next = Button(description="these are right, next", tooltip="keep what is chosen, and show the next page",
                           button_style="primary", layout={"width": "auto"})
        self.said = HTML()
        self.cells = [VBox([HTML(), Dropdown(options=photos.classes, description="is", layout={"width": "116px"},
                                                style={"description_width": "initial"})],
                           layout={"width": "124px", "margin": "2px"}) for _ in range(PAGE)]
        self.grid = Box(layout=ROW)
        self.box = VBox([HBox([self.order, self.only, self.next], layout=ROW), self.said, self.grid])
        for control in (self.order, self.only):
            control.observe(lambda _: self.show(), "value")
        self.next.on_click(lambda _: self.keep())
        self.show()

    def keep(self) -> None:
        """Mark the pictures of this page, and show the next."""
        marks, names = {}, self.photos.classes
        for row, cell in zip(self.rows, self.cells):
            marks[self.photos.files[row]] = Mark(cell.children[1].value, "review", names[self.found.label[row]])
        try:
            self.photos.marks.put(marks)
            self.show()
        except InputError as error:
            self.said.value = escape(str(error))

    def show(self) -> None:
        names = self.photos.classes
        self.rows = to_review(self.photos, self.found, ORDERS[self.order.value], self.only.value)[:PAGE]
        for row, cell in zip(self.rows, self.cells):
            file, image, guess = self.photos.files[row], self.photos.data.images[row], names[self.found.label[row]]
            small = Image.fromarray(image.permute(1, 2, 0).numpy())
            cell.children[0].value = as_html(small, file, "width:112px;height:112px;object-fit:cover")
            cell.children[1].options = names            # a class may be new
            cell.children[1].value = guess
            cell.children[1].tooltip = f"label of {file}"
        self.grid.children = self.cells[:len(self.rows)]
        self.next.disabled = not self.rows
        self.said.value = escape(reviewed(self.photos)) if self.rows else "No guess is left here. " + escape(
            reviewed(self.photos))


def to_review(photos: Photos, found: PseudoLabels, order: int = 1, only: str = "all classes") -> list[int]:
    """Rows that nobody has marked, by the weight of their guess, the largest first (order 1) or last (-1)."""
    names = photos.classes
    rows = [row for row in torch.argsort(found.weight, descending=order > 0, stable=True).tolist()
            if photos.files[row] not in photos.marks.by_file]
    return [row for row in rows if only == "all classes" or names[found.label[row]] == only]


def reviewed(photos: Photos) -> str:
    """Of the guesses that were looked at, how many were wrong, with its interval."""
    marks = [mark for mark in photos.marks.by_file.values() if mark.part == "review"]
    if not marks:
        return "Looked at: no guess yet."
    wrong = sum(mark.label != mark.guess for mark in marks)
    low, high = interval(wrong, len(marks))
    return f"Looked at: {len(marks)} guesses, {wrong} wrong ({low:.0%} to {high:.0%} of guesses like these)."


def review(photos: Photos, found: PseudoLabels, demo: int = PAGE) -> None:
    """Show the guesses of pictures that nobody has labelled, a page at a time, each with a list of the classes. What is
    kept is written to the marks. demo: how many of the surest a stand-in looks at, in all."""
    if photos.labeler == "you" and watched():
        display(Reviewing(photos, found).box)
        return
    if photos.labeler == "demo":
        done = sum(mark.part == "review" for mark in photos.marks.by_file.values())
        rows = to_review(photos, found)[:max(0, demo - done)]
        guess = [photos.classes[found.label[row]] for row in rows]
        photos.stand_in({photos.files[row]: "review" for row in rows}, guess)
    print(reviewed(photos))
