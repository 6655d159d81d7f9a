"""Rules that hold for every source file: nothing unsafe, nothing unnamed, nothing misplaced."""

import pathlib
import re
import tomllib

import pytest
from packages import PACKAGES

UNSAFE = (
    r"allow_pickle\s*=\s*True",
    r"(?<![\w.])eval\(",
    r"(?<![\w.])exec\(",
    r"extractall\(",
    r"shell\s*=\s*True",
    r"torch\.load\(",
    r"os\.system\(",
    r"yaml\.load\(",
)
FRAMES = ("object", "hand", "link", "geom", "world", "base", "cam")


def sources(repository: pathlib.Path) -> list[pathlib.Path]:
    return [path for package in PACKAGES for path in sorted((repository / package).rglob("*.py"))]


@pytest.mark.parametrize("pattern", UNSAFE)
def test_no_unsafe_call(repository: pathlib.Path, pattern: str) -> None:
    hits = [
        f"{path.relative_to(repository)}:{number}"
        for path in sources(repository)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not hits


def test_a_known_frame_pair_is_never_used_in_both_directions_under_one_name(
    repository: pathlib.Path,
) -> None:
    """`T_a_b @ p_a` or `T_a_b @ T_a_c`: the letters that should cancel do not."""
    frame = "|".join(FRAMES)
    product = re.compile(
        rf"\b[TR]_(?:{frame})_(?P<inner>{frame})\s*(?:@|\.apply\()\s*[TRp]_(?P<outer>{frame})\b"
        rf"(?P<rest>_(?:{frame}))?"
    )
    point = re.compile(rf"\bp_(?:{frame})\b(?!_)")
    hits = []
    for path in sources(repository):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            hits += [
                f"{path.relative_to(repository)}:{number}: {match.group(0)}"
                for match in product.finditer(line)
                if match["inner"] != match["outer"]
            ]
    assert not hits
    assert point.search("p_object")


def test_flax_is_imported_only_by_the_models(repository: pathlib.Path) -> None:
    importer = re.compile(r"^\s*(?:from|import) flax\b", re.MULTILINE)
    allowed = repository / "realdex_jax" / "models"
    wrong = [
        str(path.relative_to(repository))
        for path in sources(repository)
        if importer.search(path.read_text()) and allowed not in path.parents
    ]
    assert not wrong


def test_mujoco_is_imported_in_the_core_only_where_mjcf_is_read(repository: pathlib.Path) -> None:
    importer = re.compile(r"^\s*(?:from|import) mujoco\b", re.MULTILINE)
    hits = {
        str(path.relative_to(repository))
        for path in (repository / "realdex_jax").rglob("*.py")
        if importer.search(path.read_text())
    }
    assert hits <= {"realdex_jax/hand/load.py"}


@pytest.mark.parametrize(
    ("package", "place"),
    [
        ("viser", "viewer/server.py"),
        ("pyarrow", "realdex_jax/data/lerobot.py"),
        ("pyk4a", "capture/kinect.py"),
        ("cv2", "capture/apriltag.py"),
    ],
)
def test_an_optional_package_is_imported_in_one_file(
    repository: pathlib.Path, package: str, place: str
) -> None:
    importer = re.compile(rf"^\s*(?:from|import) {package}\b", re.MULTILINE)
    hits = {
        str(path.relative_to(repository))
        for path in sources(repository)
        if importer.search(path.read_text())
    }
    assert hits == {place}


def test_no_bare_suppression(repository: pathlib.Path) -> None:
    bare = re.compile(r"#\s*(?:type:\s*ignore|noqa\s*$|noqa(?!:)|pyright:\s*ignore(?!\[))")
    hits = [
        f"{path.relative_to(repository)}:{number}"
        for path in sources(repository)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert not hits


def test_every_file_is_named_by_a_noun(repository: pathlib.Path) -> None:
    vague = {"utils", "util", "common", "misc", "helpers", "helper", "tools"}
    assert not [path for path in sources(repository) if path.stem in vague]


def test_lock_names_every_declared_dependency(repository: pathlib.Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {normal(re.split(r"[\[<>=~!; ]", line, maxsplit=1)[0]) for line in declared}
    locked = (repository / "requirements.lock").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+", line) for line in locked)
    assert names <= {normal(line.split("==")[0]) for line in locked}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
