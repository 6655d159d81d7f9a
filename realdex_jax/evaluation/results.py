"""The results file: what was measured, on what, under which constants. One contract for all.

    {"command", "commit", "device", "versions", "seeds", "physics": {every constant},
     "rows": [{"data", "split", "method", "stage", "objects", "grasps",
               "metrics": {name: {"mean", "sd", "n"}}}],
     "notes": [what a reader of the numbers must know],
     "spread": what "sd" is over, "grasps" or training "seeds",
     "config": {every setting}}

A file without "notes" has none, one without "spread" is over grasps, one without "config" is older.
Strict JSON: a value that could not be measured is null, never NaN.
"""

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np

from realdex_jax.errors import RealdexError

STAGES = ("dataset", "raw", "refined", "filtered", "physics", "selected")
"""Where in the chain the grasps of a row were taken."""

Spread = Literal["grasps", "seeds"]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "mujoco", "mujoco-mjx", "realdex_jax")


class ResultsError(RealdexError):
    """A results file that breaks the contract."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric is shown."""

    label: str
    digits: int
    better: int
    """1: more is better; -1: less is better; 0: neither."""
    share: bool = False
    """Lies between 0 and 1."""
    whole: bool = False
    """Has one value for a whole set of grasps, not one a grasp."""


METRICS: dict[str, Metric] = {
    "sim_disp_0146_cm": Metric("sim.disp. 0.146 s (cm)", 2, -1),
    "sim_disp_1s_capped_cm": Metric("sim.disp. 1 s, capped (cm)", 2, -1),
    "held": Metric("held 1 s", 3, 1, share=True),
    "held_six": Metric("held, six ways", 3, 1, share=True),
    "robust_success": Metric("robust", 3, 1, share=True),
    "penetration_cm": Metric("pene.dist. (cm)", 3, -1),
    "self_intersection_cm3": Metric("self.inter.vol. (cm³)", 3, -1),
    "contact_number": Metric("touching links", 1, 1),
    "contact_distance_mm": Metric("finger gap (mm)", 2, -1),
    "functional_share": Metric("on functional part", 3, 1, share=True),
    "part_held": Metric("held by the part for it", 3, 1, share=True),
    "human_score": Metric("local score (0 to 5)", 2, 1),
    "q1": Metric("Q1", 3, 1),
    "valid_q1": Metric("Q1, 0 if 5 mm deep", 3, 1),
    "q1_bench": Metric("2 - Q1 of the tips", 3, -1),
    "diversity": Metric("diversity (rad)", 3, 1, whole=True),
    "joint_entropy": Metric("joint entropy (bits)", 2, 1, whole=True),
    "pca_first_share": Metric("variance on one axis", 3, -1, share=True, whole=True),
    "rotation_spread_deg": Metric("spread of palm turns (deg)", 1, 1, whole=True),
    "translation_spread_cm": Metric("spread of palm places (cm)", 2, 1, whole=True),
    "distinct_count": Metric("distinct grasps", 1, 1, whole=True),
    "ms_per_grasp": Metric("ms/grasp", 1, -1, whole=True),
    "mpjpe_cm": Metric("MPJPE (cm)", 2, -1),
    "ave_cm2": Metric("AVE (cm²)", 2, -1),
    "ave_local_cm2": Metric("AVE of the fingers (cm²)", 3, -1),
    "verts_offset_mm": Metric("verts.offset (mm)", 2, -1),
    "min_dist_mm": Metric("min.dist. (mm)", 2, -1),
    "motion_penetration_p95_mm": Metric("motion penetration p95 (mm)", 2, -1),
    "jerk_m_s3": Metric("jerk (m/s³)", 1, -1),
    "limit_violations": Metric("beyond joint limits", 3, -1, share=True),
    "velocity_violations": Metric("beyond joint speeds", 3, -1, share=True),
    "lift_success": Metric("lifted", 3, 1, share=True),
}
"""Every metric the contract knows."""


@dataclasses.dataclass(frozen=True)
class Stat:
    """Mean, standard deviation (None below two values) and count of one metric."""

    mean: float | None
    sd: float | None
    n: int


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a results table."""

    data: str
    """Dataset or folder the objects are from."""
    split: str
    method: str
    """What made the grasps: "synthesis", "cvae" ..."""
    stage: str
    """One of `STAGES`."""
    objects: int
    grasps: int
    metrics: Mapping[str, Stat]


@dataclasses.dataclass(frozen=True)
class Results:
    """One evaluation."""

    command: str
    commit: str
    device: str
    versions: Mapping[str, str]
    seeds: Sequence[int]
    physics: Mapping[str, Any]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    """What a reader of the numbers must know: objects left out or replaced, places filled up."""
    spread: Spread = "grasps"
    """What the standard deviations are over: grasps, or training seeds (of their means)."""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """All settings of the run."""


def stat(values: Sequence[float] | np.ndarray) -> Stat:
    """Summary of measured values; NaN means "not measured" and is left out."""
    x = np.asarray(values, np.float64).ravel()
    x = x[np.isfinite(x)]
    return Stat(
        mean=float(x.mean()) if len(x) else None,
        sd=float(x.std(ddof=1)) if len(x) > 1 else None,
        n=len(x),
    )


def collect(
    command: str,
    seeds: Sequence[int],
    physics: Mapping[str, Any],
    rows: Sequence[Row],
    notes: Sequence[str] = (),
    spread: Spread = "grasps",
    config: object = None,
) -> Results:
    """Adds commit, device and versions of this run; `config` is the dataclass of its settings."""
    return Results(
        command=command,
        commit=commit(),
        device=device(),
        versions=versions(),
        seeds=tuple(int(seed) for seed in seeds),
        physics=dict(physics),
        rows=tuple(rows),
        notes=tuple(notes),
        spread=spread,
        config={} if config is None else plain(config),
    )


def commit() -> str:
    """The checked-out commit, marked "+changes" if files differ from it; "unknown" without git."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def device() -> str:
    """What JAX computes on, and the machine around it."""
    first = jax.devices()[0]
    return (
        f"{len(jax.devices())} x {first.device_kind} ({first.platform}), "
        f"{os.cpu_count()} {platform.machine()} cores, {platform.system()}"
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def save(results: Results, path: str | Path) -> Path:
    """Writes a results file; one that is already there is replaced only by a complete new one.

    Raises:
        ResultsError: The results break the contract, or the file cannot be written.
    """
    path = Path(path)
    text = json.dumps(dataclasses.asdict(results), indent=2, allow_nan=False) + "\n"
    validate(json.loads(text), str(path))
    try:
        write_whole(path, text)
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}; nothing was changed") from error
    return path


def load(path: str | Path) -> Results:
    """Reads a results file.

    Raises:
        ResultsError: It is missing, not JSON, or breaks the contract.
    """
    path = Path(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ResultsError(f"no results file at {path}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    validate(raw, str(path))
    rows = tuple(
        Row(**{**row, "metrics": {name: Stat(**s) for name, s in row["metrics"].items()}})
        for row in raw["rows"]
    )
    notes = tuple(raw.get("notes", ()))
    return Results(**{**raw, "rows": rows, "seeds": tuple(raw["seeds"]), "notes": notes})


def validate(raw: Any, where: str = "results") -> None:
    """Checks parsed JSON against the contract.

    Raises:
        ResultsError: A field is missing, unknown or of the wrong kind; a stage or metric is not
            known; a share lies outside 0 to 1.
    """
    _fields(
        {"notes": [], "spread": "grasps", "config": {}, **raw} if isinstance(raw, dict) else raw,
        {
            "command": str,
            "commit": str,
            "device": str,
            "versions": dict,
            "seeds": list,
            "physics": dict,
            "rows": list,
            "notes": list,
            "spread": str,
            "config": dict,
        },
        where,
    )
    if raw.get("spread", "grasps") not in get_args(Spread):
        raise ResultsError(
            f"{where}: spread {raw['spread']!r}; known: {', '.join(get_args(Spread))}"
        )
    if not all(isinstance(note, str) for note in raw.get("notes", [])):
        raise ResultsError(f"{where}: every note must be text")
    if not raw["physics"]:
        raise ResultsError(f"{where}: physics is empty; every constant must be listed")
    for number, row in enumerate(raw["rows"]):
        place = f"{where}: row {number}"
        _fields(
            row,
            {
                "data": str,
                "split": str,
                "method": str,
                "stage": str,
                "objects": int,
                "grasps": int,
                "metrics": dict,
            },
            place,
        )
        if row["stage"] not in STAGES:
            raise ResultsError(f"{place}: stage {row['stage']!r}; known: {', '.join(STAGES)}")
        for name, value in row["metrics"].items():
            _check_metric(name, value, f"{place}: {name}")


def _check_metric(name: str, value: Any, place: str) -> None:
    if name not in METRICS:
        raise ResultsError(f"{place}: unknown metric; known: {', '.join(METRICS)}")
    number = (int, float, type(None))
    _fields(value, {"mean": number, "sd": number, "n": int}, place)
    mean = value["mean"]
    if any(x is not None and not math.isfinite(x) for x in (mean, value["sd"])):
        raise ResultsError(f"{place}: not finite; a value that was not measured is null")
    if (mean is None) != (value["n"] == 0):
        raise ResultsError(f"{place}: mean {mean} of {value['n']} values")
    if METRICS[name].share and mean is not None and not 0.0 <= mean <= 1.0:
        raise ResultsError(f"{place}: {mean} is a share and must lie between 0 and 1")


def _fields(raw: Any, expected: Mapping[str, Any], where: str) -> None:
    if not isinstance(raw, dict):
        raise ResultsError(f"{where}: is {type(raw).__name__}, not an object")
    if set(raw) != set(expected):
        different = ", ".join(sorted(set(raw) ^ set(expected)))
        raise ResultsError(
            f"{where}: fields must be {', '.join(expected)}; missing or unknown: {different}"
        )
    for name, kind in expected.items():
        if not isinstance(raw[name], kind) or isinstance(raw[name], bool):
            raise ResultsError(f"{where}: {name} is {type(raw[name]).__name__}")


def plain(value: object) -> Any:
    """As strict JSON holds it; what is not finite was not measured, and is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | range):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it: readers see the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
