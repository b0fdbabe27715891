"""The architecture: a room imports only rooms above it in the docstring of sslkit/__init__.py, and only what they export."""
import ast
from pathlib import Path

import sslkit

PACKAGE = Path(sslkit.__file__).parent
ORDER = (("errors", "records", "files", "terminal", "processes"), ("data",), ("networks",), ("methods",), ("labelers",), ("training",), ("papers",),
         ("batch",), ("lessons",), ("cli",), ("__main__",))
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}


def imports(path: Path) -> set[str]:
    """What a file imports of sslkit, with dots: `sslkit.data`, `sslkit.data.split` ..."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"sslkit.{name.name}" for name in node.names} if node.module == "sslkit" else {node.module}
    return {name for name in found if name.startswith("sslkit.") and name != "sslkit.__version__"}


def test_no_import_runs_back_up_and_rooms_are_entered_by_their_door():
    wrong, seen = [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imports(path) if room != "__init__" else ():
            other, seen = name.split(".")[1], seen | {room}
            if FLOOR[other] > FLOOR[room] or (other != room and name.count(".") > 1):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong and seen >= {"data", "networks", "methods", "labelers", "training", "papers", "batch", "lessons", "cli"}, wrong


def test_no_module_is_longer_than_300_lines_nor_wider_than_120_columns():
    texts = {path: path.read_text().splitlines() for path in PACKAGE.rglob("*.py")}
    assert {path.name: len(lines) for path, lines in texts.items() if len(lines) > 300} == {}
    assert [f"{path.name}:{k}" for path, lines in texts.items() for k, line in enumerate(lines, 1) if len(line) > 120] == []


def test_public_names_can_be_imported_and_lessons_import_from_rooms_alone():
    import json

    assert all(getattr(sslkit, name) is not None for name in sslkit.__all__)
    for path in sorted((PACKAGE.parent / "notebooks").glob("*.ipynb")):
        code = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        for line in "\n".join(code).splitlines():
            if line.startswith("from sslkit"):
                assert line.split()[1].count(".") <= 1 and line.split()[1] != "sslkit.errors", f"{path.name}: {line}"
