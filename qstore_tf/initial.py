"""Keras's initialisers as the init of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from qstore_core import SpecError
from qstore_core.circuit.checks import read_fields, shown
from qstore_core.circuit.spec.initial import Init, check_init

__all__ = ["as_init"]


class _KerasInit:
    """A Keras initialiser; one without a seed of its own is seeded by the layer."""

    def __init__(self, initializer: keras.initializers.Initializer) -> None:
        self.initializer = initializer

    def __call__(self, rng: np.random.Generator, size: int) -> np.ndarray:
        made, config = self.initializer, self.initializer.get_config()
        if "seed" in config and config["seed"] is None:
            made = type(made).from_config(config | {"seed": int(rng.integers(2**31))})
        return np.asarray(keras.ops.convert_to_numpy(made((size,), dtype="float32")), np.float64)

    def to_config(self) -> dict[str, Any]:
        """The form that files hold."""
        config: dict[str, Any] = keras.initializers.serialize(self.initializer)
        return config


def _restored(saved: Mapping[str, Any]) -> Any:
    """From the form that files hold: a class of Keras's, or one registered with it; nothing is imported."""
    known: dict[str, Any] = {"module": None, "config": {}, "registered_name": None}
    fields = read_fields(saved, "an initialiser of Keras", ["class_name"], known)
    name, registered = fields["class_name"], fields["registered_name"]
    cls = keras.saving.get_registered_object(registered) if isinstance(registered, str) else None
    if cls is None and isinstance(name, str) and fields["module"] in (None, "keras.initializers"):
        cls = getattr(keras.initializers, name, None)
    if not (isinstance(cls, type) and issubclass(cls, keras.initializers.Initializer)):
        raise SpecError(
            f"no initialiser {shown(name)} of Keras's, and none registered as {shown(registered)}. Decorate its class "
            "with @keras.saving.register_keras_serializable(), and import that module before loading.",
            argument="init",
        )
    try:
        return cls.from_config(dict(fields["config"]))  # type: ignore[attr-defined]
    except Exception as error:
        raise SpecError(f"initialiser {name!r} of Keras: {error}", argument="init") from error


def as_init(init: Any) -> Init:
    """`keras.initializers.RandomUniform(...)`, its saved form, or what every layer takes."""
    if isinstance(init, _KerasInit):
        return init
    if isinstance(init, Mapping) and "class_name" in init:
        init = _restored(init)
    return _KerasInit(init) if isinstance(init, keras.initializers.Initializer) else check_init(init)
