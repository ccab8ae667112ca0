"""Train an image classifier whose head is three quantum layers, in Keras, PyTorch or JAX.

    python examples/image_classification.py --framework keras --quick-test --visualize
    python examples/image_classification.py --framework torch
    python examples/image_classification.py --framework jax         # flax
    KERAS_BACKEND=jax python examples/image_classification.py       # Keras on JAX, or on torch
    python examples/image_classification.py --data PetImages --epochs 30
    python examples/image_classification.py --no-quantum            # classical layers in the same places
    python examples/image_classification.py --quick-test --export out    # ONNX and LiteRT, tried on 200 digits

image → convolutions 32, 64, 128, 256 (separable, residual) → global average pooling
  → Dense 256 → QuantumFeatureExtractor, 8 qubits → 8 numbers
  → Dense 64  → QuantumPooling, 6 qubits          → 3 numbers
  → Dense 16  → QuantumReadout, 4 qubits          → 4 numbers
  → Dense, one logit (two classes) or one for each class
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from image_classification_lib import report
from image_classification_lib.data import Batches, DataError, ImageData, load, split
from image_classification_lib.export import check
from image_classification_lib.train import Monitor, Progressed, Settings, probabilities
from rich.console import Console

from qstore_core import QstoreError, cache_info, fallback_counts
from qstore_core.layers.presets import PRESETS

VALIDATION_SHARE = 0.2
EXTRAS = {"keras": "tf", "torch": "torch", "jax": "flax"}  # what installs each framework
EXPORT_CHECKS = 200  # images that exported models classify
QUICK_TEST = {"limit": 1000, "epochs": 5, "batch_size": 16}  # small batches: 250 steps out of few images


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = parse(arguments)
    console = Console(highlight=False)
    try:
        run(options, console)
    except (DataError, QstoreError, ImportError) as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", soft_wrap=True, markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, with every default filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--framework", choices=("keras", "torch", "jax"), default="keras", help="default: keras")
    add("--data", default="mnist", metavar="mnist|synthetic|PATH", help="PATH: a folder of class folders of JPEGs")
    add("--image-size", type=_at_least(16), default=180, help="side of the images of a folder (default: 180)")
    add("--limit", type=_at_least(8), help="take at most this many images")
    add("--quick-test", action="store_true", help="1,000 images, 5 epochs, batches of 16")
    head = parser.add_mutually_exclusive_group()
    head.add_argument("--no-quantum", action="store_true", help="classical layers in the quantum layers' places")
    head.add_argument("--original", action="store_true", help="one quantum layer: 8 qubits, depth 3, bases Z, X, Y")
    head.add_argument("--preset", choices=tuple(PRESETS), help="qubits, depth, bases and batch size")
    add("--epochs", type=_at_least(1), help="default: 20; for synthetic images 2")
    add("--batch-size", type=_at_least(2), help="default: the preset's, or 64; for larger images than MNIST's 32")
    add("--learning-rate", type=_positive, default=Settings.learning_rate, help="highest rate (default: %(default)s)")
    add("--backend", default="auto", help="what simulates the circuits (default: %(default)s)")
    add("--seed", type=_at_least(0), default=0, help="of the split, the weights, the order and the augmentation")
    add("--mixed-precision", action="store_true", help="compute in bfloat16 what is not a circuit")
    add("--checkpoint-gradients", action="store_true", help="compute blocks twice instead of keeping what is in them")
    add("--resume", action="store_true", help="keep progress in --output-dir, and go on from what is there")
    add("--visualize", action="store_true", help="write pictures of the run")
    add("--export", type=Path, metavar="DIR", help="write the model as ONNX (Keras: LiteRT too); try it on 200 images")
    add(
        "--output-dir",
        type=Path,
        help="where files go (default with --visualize and --resume: out/)",
    )
    options = parser.parse_args(arguments)
    if options.export is not None and options.mixed_precision:
        parser.error("--export writes models that compute in float32: leave --mixed-precision out")
    defaults = QUICK_TEST if options.quick_test else {}
    batch_size = PRESETS[options.preset].batch_size if options.preset else 64 if options.data == "mnist" else 32
    for name, value in (
        ("limit", defaults.get("limit")),
        ("epochs", defaults.get("epochs", 2 if options.data == "synthetic" else 20)),
        ("batch_size", defaults.get("batch_size", batch_size)),
        ("output_dir", Path("out") if options.visualize or options.resume else None),
    ):
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def run(options: argparse.Namespace, console: Console) -> report.Result:
    """Load, train, measure and report."""
    for name, folder in (("--output-dir", options.output_dir), ("--export", options.export)):
        if folder is not None:  # before the work: a folder that cannot be written must not cost a run
            _make_folder(name, folder)
    data = load(options.data, limit=options.limit, image_size=options.image_size, seed=options.seed)
    train, validation = split(data, validation_share=VALIDATION_SHARE, seed=options.seed)
    settings = Settings(
        head="classical" if options.no_quantum else "original" if options.original else "quantum",
        epochs=options.epochs,
        batch_size=min(options.batch_size, len(train.labels)),
        learning_rate=options.learning_rate,
        preset=options.preset,
        backend=options.backend,
        seed=options.seed,
        mixed_precision=options.mixed_precision,
        checkpoint_gradients=options.checkpoint_gradients,
    )
    framework = _import_framework(options.framework)
    if options.export is not None and not hasattr(framework, "export"):
        raise DataError(f"--export: --framework {options.framework} writes no ONNX. Use --framework keras or torch.")
    batches = Batches(train, settings.batch_size, settings.seed)
    model = framework.make(settings, train)
    _announce(console, framework, model, data, train, validation, settings)

    progress = Progressed(options.output_dir, settings) if options.resume else None
    history, best = progress.load() if progress is not None else ([], None)
    if history:
        console.print(f"going on after epoch {len(history)}")
    with Monitor(settings, batches.steps_per_epoch, console, progress, history, best) as monitor:
        begin = time.perf_counter()
        framework.fit(model, batches, validation, settings, monitor)
        seconds = time.perf_counter() - begin
    cache, fallbacks = cache_info(), sum(fallback_counts().values())  # before timing adds calls of its own
    layers = framework.quantum_layers(model)
    result = report.Result(
        framework=options.framework,
        version=framework.VERSION,
        settings=settings,
        source=data.source,
        image_shape=data.images.shape[1:],
        train_images=len(train.labels),
        validation_images=len(validation.labels),
        skipped_files=len(data.skipped),
        parameters=framework.parameter_count(model),
        quantum_parameters=sum(layer.spec.n_weights for layer in layers.values()),
        history=monitor.history,
        best=monitor.best,
        train_seconds=seconds,
        step_seconds=monitor.step_time,
        part_seconds=framework.time_parts(model, batches[0][0]),
        quantum_layers={name: layer.backend_name for name, layer in layers.items()},
        cache={"hits": cache.hits, "misses": cache.misses},
        fallbacks=fallbacks,
    )
    if options.export is not None:
        images = np.concatenate([validation.images, train.images])[:EXPORT_CHECKS]
        files = framework.export(model, images, options.export)
        result.exported = check(files, images, framework.predict(model, images))
    report.show(result, console)
    if options.output_dir is not None:
        written = [report.write(result, options.output_dir)]
        if options.visualize:
            from image_classification_lib import plots  # matplotlib takes a second: only when it is wanted

            chances = probabilities(framework.predict(model, validation.images))
            circuits = {name: layer.circuit for name, layer in layers.items()}
            written += plots.write_all(result, validation, chances, circuits, options.output_dir)
        console.print(f"written: {', '.join(map(str, written))}", soft_wrap=True)
    return result


def _import_framework(name: str) -> ModuleType:
    """Return `fit_keras`, `fit_torch` or `fit_jax`: the same functions in all."""
    if name == "keras":
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes about the processor
    try:
        return importlib.import_module(f"image_classification_lib.fit_{name}")
    except ImportError as error:
        raise ImportError(
            f'--framework {name} cannot be imported: {error}. pip install "qstore[{EXTRAS[name]},examples]"'
        ) from error


def _announce(
    console: Console,
    framework: ModuleType,
    model: object,
    data: ImageData,
    train: ImageData,
    validation: ImageData,
    settings: Settings,
) -> None:
    height, width, channels = data.images.shape[1:]
    console.print(
        f"{framework.VERSION}, {settings.head} head{f', preset {settings.preset}' if settings.preset else ''}\n"
        f"{data.source}: {len(train.labels)} images to train on, {len(validation.labels)} to validate, "
        f"{height}x{width}x{channels}, classes {', '.join(data.class_names)}"
    )
    if data.skipped:
        console.print(f"skipped {len(data.skipped)} files that are not JFIF or do not decode: {data.skipped[0]}, …")
    for name, layer in framework.quantum_layers(model).items():
        spec = layer.spec
        console.print(f"{name}: {spec.n_qubits} qubits → {layer.output_dim} numbers, {spec.n_weights} angles")


def _make_folder(name: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{name} {path}: cannot be made: {error}") from error


def _at_least(least: int):
    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, received {text!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, received {value}")
        return value

    return whole


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, received {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
