"""Label pictures by clicks: one large picture, a button for each class. Each click is on the disk before the next
picture is shown."""
import base64
import io
from collections.abc import Mapping
from html import escape

from IPython.display import display
from ipywidgets import HTML, Box, Button, HBox, Text, VBox

from sslkit.data import Mark, picture_in
from sslkit.errors import InputError
from sslkit.lessons import plots
from sslkit.lessons.photos import Photos
from sslkit.lessons.session import watched
from sslkit.records import PseudoLabels

LARGE, STRIP = 520, 12            # pixels of the picture; how many of the last labels a page shows
ROW = {"flex_flow": "row wrap", "overflow": "visible"}


def as_html(image, name: str, style: str) -> str:
    """A Pillow image as HTML, its file's name as alternative text."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(name)}" title="{escape(name)}" style="{style}">'


class Labeling:
    """The widgets, and what a click does. The place in the queue is the first file without a mark."""

    def __init__(self, photos: Photos, queue: Mapping[str, str]):
        self.photos, self.queue, self.file = photos, queue, None
        self.picture, self.said = HTML(), HTML()
        self.classes = Box(layout=ROW)
        self.skip, self.back = (Button(description=name, tooltip=why, layout={"width": "auto"}) for name, why in (
            ("skip", "no label for this picture"), ("back", "take the last label back")))
        self.new = Text(description="another class", style={"description_width": "initial"}, layout={"width": "240px"})
        self.add = Button(description="add", tooltip="add this class", layout={"width": "auto"})
        self.skip.on_click(lambda _: self.mark(""))
        self.back.on_click(lambda _: self.undo())
        self.add.on_click(lambda _: self.add_class())
        others = HBox([self.skip, self.back, self.new, self.add], layout=ROW)
        self.box = VBox([self.said, self.classes, others, self.picture])
        self.buttons()
        self.show()

    def buttons(self) -> None:
        """A button for each class, in the order in which the classes came."""
        made = []
        for name in self.photos.classes:
            button = Button(description=name, tooltip=f"label: {name}", layout={"width": "auto", "max_width": "100%"},
                            button_style="primary")
            button.on_click(lambda _, name=name: self.mark(name))
            made.append(button)
        self.classes.children = made

    def mark(self, label: str) -> None:
        if self.file is None:                           # a click beyond the last picture
            return
        try:
            self.photos.marks.put({self.file: Mark(label, self.queue[self.file])})
            self.show(f"{escape(self.file)}: <b>{escape(label) or 'skipped'}</b>")
        except InputError as error:
            self.show(escape(str(error)))

    def undo(self) -> None:
        try:
            back = self.photos.marks.take_back(set(self.queue))
            self.show("taken back" if back else "nothing to take back")
        except InputError as error:
            self.show(escape(str(error)))

    def add_class(self) -> None:
        self.photos.name_class(self.new.value)
        self.new.value = ""
        self.buttons()
        self.show()

    def show(self, last: str = "") -> None:
        """Show the first picture without a mark, and say how many have one."""
        todo = [file for file in self.queue if file not in self.photos.marks.by_file]
        self.file = todo[0] if todo else None
        self.picture.value = self.drawn()               # before the text, which says that it is there
        done = f"{len(self.queue) - len(todo)} of {len(self.queue)}"
        ask = "" if self.photos.classes or not todo else " Name a class below and add it."
        self.said.value = (f"<b>{done}</b>{'.' if todo else ': all done. Run the next cells.'}{ask} "
                           f"<span style='color:#666'>{last}</span>")

    def drawn(self) -> str:
        """The picture to label, as HTML."""
        if self.file is None:
            return ""
        try:
            image = picture_in(self.photos.folder / self.file, LARGE)
        except Exception as error:                      # Pillow raises nearly everything on damaged files
            return f"{escape(self.file)} cannot be shown ({escape(str(error))}): skip it"
        image.thumbnail((LARGE, LARGE))
        return as_html(image, self.file, "max-width:100%;min-height:240px;object-fit:contain")


def label_pictures(photos: Photos, queue: Mapping[str, str]) -> None:
    """Ask for a label of each picture in `queue` (file -> part), in its order; those that have one are not asked again.

    Without a viewer nobody can click, and a stand-in needs no clicks: the last pictures that have a label are shown.
    """
    if photos.labeler == "demo":
        photos.stand_in(queue)
        print("a stand-in labels: it takes the names of the folders that the pictures lie in")
    elif watched():
        display(Labeling(photos, queue).box)
        return
    marked = [file for file in queue if photos.marks.by_file.get(file, Mark("", "train")).label][-STRIP:]
    place = {file: row for row, file in enumerate(photos.files)}
    if marked:
        names = [photos.marks.by_file[file].label for file in marked]
        display(plots.image_grid({"": [photos.data.images[place[file]] for file in marked]}, names, size=0.75))
    else:
        print("nobody has labelled a picture yet")


def export_button(photos: Photos, found: PseudoLabels) -> None:
    """A button that writes the labels and the class folders, see Photos.export(); it says where. Without a viewer:
    a sentence."""
    if not watched():
        print("in JupyterLab a button here writes labels.csv and the class folders")
        return
    folder = Text(f"{photos.folder}-labelled", description="folder", tooltip="folder", layout={"width": "90%"})
    button, said = Button(description="write", tooltip="write labels.csv and class folders there"), HTML()

    def write(_: object) -> None:
        try:
            said.value = f"written: {escape(str(photos.export(found, folder.value)))}"
        except InputError as error:
            said.value = escape(str(error))

    button.on_click(write)
    display(VBox([folder, button, said]))
