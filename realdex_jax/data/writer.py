"""Writes datasets that do not fit in memory: object by object, and the index last."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from realdex_jax.data import folder, object_files, store
from realdex_jax.data import splits as split_rules
from realdex_jax.data.motion_set import MotionSet
from realdex_jax.data.object_files import Surface
from realdex_jax.data.schema import GraspSet
from realdex_jax.data.store import Dataset
from realdex_jax.errors import DatasetError


class Writer:
    """Writes a dataset object by object; what was at its place goes when it is finished.

        with Writer(path) as writer:
            writer.add("cup", grasps=grasps, surface=surface)
            dataset = writer.finish(name="mine", version="1", splits=splits, recipe={})

    Left before it is finished, it leaves nothing behind.
    """

    def __init__(self, path: str | Path) -> None:
        """Makes a folder beside `path` to write to.

        Raises:
            DatasetError: There is something else than a dataset at `path`, or no room for it.
        """
        folder.check_target(path)
        self.path = Path(path).resolve()
        self._digests: dict[str, str] = {}
        try:
            self._fresh = folder.begin(self.path)
        except OSError as error:
            raise DatasetError(f"cannot write beside {path}: {error.strerror}") from error

    def __enter__(self) -> "Writer":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes what was not finished."""
        shutil.rmtree(self._fresh, ignore_errors=True)

    def add(
        self,
        name: str,
        *,
        grasps: GraspSet | None = None,
        surface: Surface | None = None,
        mesh: bytes | None = None,
        motions: MotionSet | None = None,
    ) -> None:
        """Writes one object.

        Raises:
            DatasetError: Something of it breaks the rules, it was added before, or the disk is
                full.
        """
        files = object_files.encode(
            name,
            grasps=object_files.NO_GRASPS if grasps is None else grasps,
            surface=surface,
            mesh=mesh,
            motions=motions,
            compress=False,
        )
        if not self._digests.keys().isdisjoint(files):
            raise DatasetError(f"object {name!r} is added twice")
        try:
            for relative, content in files.items():
                target = self._fresh / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        except OSError as error:
            raise DatasetError(f"cannot write {name} beside {self.path}: {error}") from error
        self._digests |= {k: store.digest(v) for k, v in files.items()}

    def finish(
        self,
        *,
        name: str,
        version: str,
        splits: Mapping[str, Sequence[str]],
        recipe: Mapping[str, Any],
        schemes: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    ) -> Dataset:
        """Writes the index and puts the folder in its place; arguments as of `write_dataset`.

        Raises:
            DatasetError: Splits that name other objects than were added, a scheme that breaks the
                rules, or the folder cannot be put there.
        """
        return finish(
            self._fresh,
            self.path,
            digests=self._digests,
            name=name,
            version=version,
            splits=splits,
            recipe=recipe,
            schemes=schemes,
        )


def finish(
    fresh: Path,
    path: Path,
    *,
    digests: Mapping[str, str],
    name: str,
    version: str,
    splits: Mapping[str, Sequence[str]],
    recipe: Mapping[str, Any],
    schemes: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> Dataset:
    """Writes the index of a folder whose other files are there, and puts it in its place.

    Args:
        fresh: The folder, beside `path`.
        path: Where it goes.
        digests: SHA-256 of every file in it.
        name: Dataset name.
        version: Version of its content.
        splits: Object names by part; together those with a grasp file.
        recipe: How it was made; must be JSON.
        schemes: Further splits of the same objects by name.

    Raises:
        DatasetError: As `Writer.finish`.
    """
    split_rules.check(splits)
    listed = [object_name for names in splits.values() for object_name in names]
    there = [Path(k).stem for k in digests if k.startswith("grasps/")]
    if sorted(listed) != sorted(there):
        different = sorted(set(listed) ^ set(there))[:20] or "an object twice"
        raise DatasetError(
            f"splits and grasps must name the same objects once each; differing: {different}"
        )
    split_rules.check_schemes(schemes or {}, listed)
    content = store.index_bytes(
        name=name,
        version=version,
        splits=splits,
        digests=digests,
        recipe=recipe,
        schemes=schemes,
    )
    try:
        (fresh / store.INDEX).write_bytes(content)
        os.sync()  # once for all files, before the first rename
        folder.exchange(fresh, path)
    except OSError as error:
        raise DatasetError(
            f"could not write {path}: {error}; what was there before is unchanged"
        ) from error
    return store.open_dataset(path)
