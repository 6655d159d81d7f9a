"""Frozen records that JAX can carry.

`jax.tree_util.register_dataclass` rebuilds records through `__init__`, where a runtime shape
checker sees the placeholders JAX puts in the fields and fails. Here unflattening skips `__init__`,
so a record survives `tree.map`, `vmap` axes and `eval_shape` unchanged, and the type checker still
sees a frozen dataclass.
"""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

_T = TypeVar("_T")


def static(**kwargs: Any) -> Any:
    """Marks a field as static: hashed and compared, never traced."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def dataclass(cls: type[_T]) -> type[_T]:
    """Makes `cls` a frozen dataclass and a pytree whose leaves are its non-static fields."""
    record = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(record)  # pyright: ignore[reportArgumentType]
    dynamic = tuple(f.name for f in fields if not f.metadata.get("static", False))
    fixed = tuple(f.name for f in fields if f.metadata.get("static", False))

    def flatten_with_keys(x: _T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(n), getattr(x, n)) for n in dynamic]
        return children, tuple(getattr(x, n) for n in fixed)

    def unflatten(aux: tuple[Any, ...], children: Any) -> _T:
        new = object.__new__(record)
        for name, value in zip((*dynamic, *fixed), (*children, *aux), strict=True):
            object.__setattr__(new, name, value)
        return new

    jax.tree_util.register_pytree_with_keys(record, flatten_with_keys, unflatten)
    return record
