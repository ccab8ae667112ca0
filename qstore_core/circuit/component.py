"""What an encoding, an ansatz and a measurement have in common: a name, fields, and the form that files hold.

Each is a frozen dataclass with a name. Those of a user are registered under it (`register_encoding`,
`register_ansatz`, `register_measurement`), so that files can name them; a file never imports anything.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from ..errors import SpecError, nearest
from .checks import read_fields, shown

__all__ = ["Component", "Registry", "plain", "tuples"]

_DEEPEST = 8  # lists in lists


class Component:
    """Base of what a layer is made of.

    Attributes:
        name: What arguments and files call it.
    """

    name: ClassVar[str] = ""

    def entries(self) -> dict[str, Any]:
        """The fields as JSON values."""
        what = f"{type(self).__name__}.{{}}"
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {f.name: plain(getattr(self, f.name), what.format(f.name)) for f in fields}

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any]) -> Self:
        """Inverse of `entries`; lists come as tuples."""
        return cls(**{key: tuples(value) for key, value in entries.items()})


K = TypeVar("K", bound=Component)


class Registry(Generic[K]):
    """The encodings, ansätze or measurements that have a name.

    Args:
        what: "encoding", "ansatz" or "measurement".
        base: Their base class.
        methods: Methods that a class of a user must have.
    """

    def __init__(self, what: str, base: type[K], methods: tuple[str, ...]) -> None:
        """Start empty."""
        self.what, self.base, self._methods = what, base, methods
        self.classes: dict[str, type[K]] = {}
        self._own: set[str] = set()

    def add(self, *classes: type[K]) -> None:
        """Add classes of ours."""
        for cls in classes:
            self.classes[cls.name] = cls
            self._own.add(cls.name)

    def is_own(self, value: K) -> bool:
        """Whether it is one of ours, which every process knows."""
        return value.name in self._own and self.classes[value.name] is type(value)

    def register(self, cls: type[K]) -> type[K]:
        """Add a class of a user.

        Raises:
            SpecError: it is no frozen dataclass of the base class, lacks a method or a name, or the name is taken.
        """
        what, base = self.what, self.base.__name__
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise SpecError(f"register_{what} takes a class derived from {base}, received {shown(cls)}.")
        parameters = getattr(cls, "__dataclass_params__", None)
        if "__dataclass_fields__" not in vars(cls) or parameters is None or not parameters.frozen:
            raise SpecError(f"{cls.__name__} must be a value: decorate it with @dataclasses.dataclass(frozen=True).")
        for method in self._methods:
            if getattr(cls, method) is getattr(self.base, method):
                raise SpecError(f"{cls.__name__} has no method {method}, which every {what} has; see {base}.{method}.")
        if not isinstance(cls.name, str) or not re.fullmatch(r"[A-Za-z_][\w.-]*", cls.name):
            raise SpecError(
                f'{cls.__name__} needs a name of letters, digits, "_", "-" and ".": name: ClassVar[str] = …'
            )
        reserved = {f.name for f in dataclasses.fields(cls)} & {"name", "module"}  # type: ignore[arg-type]
        if reserved:
            raise SpecError(f"{cls.__name__}: a field cannot be called {reserved.pop()!r}.")
        taken = self.classes.get(cls.name)
        if taken is not None and (cls.name in self._own or _origin(taken) != _origin(cls)):
            raise SpecError(f"the {what} {cls.name!r} exists already: {_origin(taken)}. Choose another name.")
        self.classes[cls.name] = cls
        return cls

    def unregister(self, name: str) -> None:
        """Remove what `register` added."""
        if name not in self.classes or name in self._own:
            raise SpecError(f"no {self.what} {shown(name)} was registered in this process.")
        del self.classes[name]

    def named(self, value: Any, module: Any = None) -> type[K]:
        """The class of a name; `module` is where a file says that it was registered."""
        if isinstance(value, str) and value in self.classes:
            return self.classes[value]
        known = ", ".join(self.classes)
        hint = nearest(value, self.classes) if isinstance(value, str) and len(value) <= 80 else ""
        if isinstance(module, str):
            hint = f" It was registered by module {shown(module)}: import that first."
        raise SpecError(f"no {self.what} {shown(value)}. Known: {known}.{hint}", argument=self.what)

    def to_dict(self, value: K) -> dict[str, Any]:
        """JSON form of one of them.

        Raises:
            SpecError: its class is not registered, or a field holds what no file can.
        """
        cls = type(value)
        if self.classes.get(cls.name) is not cls:
            raise SpecError(
                f"{self.what} {shown(value)} cannot be saved: its class {_origin(cls)} is not registered. Decorate it "
                f"with @qstore_core.register_{self.what}, in a module that is imported before anything is loaded.",
                argument=self.what,
            )
        more = {} if cls.name in self._own else {"module": cls.__module__}
        return {"name": cls.name, **more, **value.entries()}

    def from_dict(self, data: Any) -> K:
        """Inverse of `to_dict`.

        Raises:
            SpecError: it is no such form, names an unknown class, or its entries do not fit.
        """
        if not isinstance(data, Mapping):
            raise SpecError(f"{self.what} is a name, an object or its saved form; received {shown(data)}.",
                            argument=self.what)  # fmt: skip
        cls = self.named(data.get("name"), data.get("module"))
        fields = [f for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]
        optional = {
            f.name: f.default if f.default is not dataclasses.MISSING else None
            for f in fields
            if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        }
        given = {key: value for key, value in data.items() if key not in ("name", "module")}
        read_fields(
            given, f"the {self.what} {cls.name!r}", [f.name for f in fields if f.name not in optional], optional
        )
        try:
            return cls.from_entries(given)
        except SpecError:
            raise
        except Exception as error:
            raise SpecError(
                f"the {self.what} {cls.name!r} does not take {shown(given)}: {type(error).__name__}: {error}",
                argument=self.what,
            ) from error


def plain(value: Any, what: str, depth: int = 0) -> Any:
    """`value` as JSON holds it: None, bools, numbers, text, and lists of these."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        return [plain(item, what, depth + 1) for item in value]
    raise SpecError(
        f"{what} is {shown(value)}, which no file can hold: None, numbers, text and sequences of them can be saved."
    )


def tuples(value: Any, depth: int = 0) -> Any:
    """Lists as tuples, so that what holds them has a hash."""
    if not isinstance(value, list | tuple):
        return value
    if depth >= _DEEPEST:
        raise SpecError(f"lists are nested at most {_DEEPEST} deep.")
    return tuple(tuples(item, depth + 1) for item in value)


def _origin(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
