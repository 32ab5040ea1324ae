"""Loading: which images a step sees, and how they become a batch; the same for any number of workers."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ssdlib.data.batch_augmentation import NO_AUGMENTATION, Views, draw_view
from ssdlib.data.transforms import Augmentation, Target, model_input


class DetectionDataset(Protocol):
    """What training needs of a data set: images (3, H, W) uint8 with targets in pixels, and the classes' names."""

    classes: tuple[str, ...]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Tensor, Target]: ...


class ShuffledEpochs(Sampler[int]):
    """Indices for DataLoader, reshuffled for each epoch; index + epoch * length, so that a data set knows the epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
        yield from (torch.randperm(self.length, generator=generator) + self.epoch * self.length).tolist()

    def __len__(self) -> int:
        return self.length


class Batches(Sampler[list[int]]):
    """The batches of `ShuffledEpochs`, for DataLoader; an epoch can be entered in its middle, and shared by processes.

    The last batch of an epoch is left out if it is not full, unless it is the only one. Of every batch, process r of w
    gets the images r, r + w, r + 2w, ...: together they see the same batch as one process alone.

    Args:
        length: images of the data set.
        batch_size: images a step, of all processes together.
        seed: of the order.
        rank, world_size: which process this is, of how many.

    Raises:
        ValueError: if the images of a step cannot be shared evenly.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size % world_size:
            raise ValueError(
                f"batch_size counts the images of all processes: {batch_size} cannot be shared by {world_size}; "
                f"take a multiple of {world_size}"
            )
        if length < world_size:
            raise ValueError(f"{world_size} processes need at least as many images, there are {length}")
        self.order, self.batch_size = ShuffledEpochs(length, seed), batch_size
        self.rank, self.world_size = rank, world_size
        self.start = 0  # first batch of the epoch that is given out

    def __len__(self) -> int:
        return max(1, self.order.length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.order)
        for number in range(self.start, len(self)):
            yield order[number * self.batch_size : (number + 1) * self.batch_size][self.rank :: self.world_size]

    def images(self, number: int) -> list[int]:
        """Indices of all images of a batch of this epoch, those of the other processes too."""
        batch = list(self.order)[number * self.batch_size : (number + 1) * self.batch_size]
        return [index % self.order.length for index in batch]


class TrainingImages(Dataset[tuple[Any, Target]]):
    """A data set through the input transform; the augmentation follows from seed, epoch and index alone.

    With `on_device` the pixels are left as they are: a batch then is `Views`, whose `to(device)` transforms them.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        size: int,
        augmentation: Augmentation | None,
        seed: int,
        on_device: bool = False,
    ) -> None:
        self.dataset, self.transform, self.seed = dataset, model_input(size, augmentation), seed
        self.size, self.augmentation, self.on_device = size, augmentation or NO_AUGMENTATION, on_device

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, epoch_and_index: int) -> tuple[Any, Target]:
        index = epoch_and_index % len(self.dataset)
        image, target = self.dataset[index]
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: that would seed the generator of a GPU, too, and take half a millisecond for it.
            torch.default_generator.manual_seed(_mix(self.seed, epoch_and_index))
            if not self.on_device:
                return self.transform(image, target)
            view, varied = draw_view(self.augmentation, self.size, image.shape[2], image.shape[1], target)
            return (image, view), varied

    def collate(self, batch: Sequence[tuple[Any, Target]]) -> tuple[Tensor | Views, list[Target]]:
        """A batch of `self[i]`: (n, 3, S, S) or `Views`, and n targets."""
        if not self.on_device:
            return collate(batch)
        seen, targets = zip(*batch, strict=True)
        pixels, views = zip(*seen, strict=True)
        return Views.of(pixels, views, self.size), Targets(targets)


def make_loader(
    images: TrainingImages, batches: Batches, workers: int, device: torch.device
) -> DataLoader[tuple[Tensor | Views, list[Target]]]:
    """Load batches, images or `Views` and n targets, in `workers` processes; pinned memory if the device is a GPU."""
    return DataLoader(
        images,  # type: ignore[arg-type]  # collate makes another type of it
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        collate_fn=images.collate,
        worker_init_fn=_leave_interrupts_to_the_main_process,
        generator=torch.Generator(),  # its own, so that loading draws no random number of the network's
    )


def endless(
    loader: DataLoader[tuple[Tensor | Views, list[Target]]], batches: Batches, step: int
) -> Iterator[tuple[Tensor | Views, list[Target]]]:
    """The batches of `loader`, epoch after epoch, from the one of step `step` (0 for the first) on."""
    while True:
        batches.order.epoch, batches.start = divmod(step, len(batches))
        for batch in loader:
            yield batch
            step += 1


def collate(batch: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """Stack images of one size; targets stay a list, as they have different numbers of objects."""
    images, targets = zip(*batch, strict=True)
    return torch.stack(images), Targets(targets)


class Targets(list[Target]):
    """The targets of a batch, which come from a process that loads as one tensor for each of their entries.

    Each tensor that goes from process to process is an open file on the way. Three for each image are too many for the
    usual limit of 1024 where a batch has a hundred images.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        names = list(self[0]) if self else []
        columns: dict[str, list[Any]] = {name: [target.get(name) for target in self] for name in names}
        alike = all(target.keys() == columns.keys() for target in self) and all(map(_can_be_one, columns.values()))
        if not alike:
            return Targets, (list(self),)
        counts = {name: [len(part) for part in parts] for name, parts in columns.items()}
        return _apart, ({name: torch.cat(parts) for name, parts in columns.items()}, counts, len(self))

    def pin_memory(self) -> Targets:
        """Left alone, where a DataLoader pins its batches: the loss pins them when they are padded."""
        return self


def _can_be_one(parts: list[Any]) -> bool:
    """Whether they are plain tensors that differ in their first dimension alone."""
    kinds = {(part.dtype, part.shape[1:]) if type(part) is Tensor and part.dim() else None for part in parts}
    return len(kinds) == 1 and None not in kinds


def _apart(columns: dict[str, Tensor], counts: dict[str, list[int]], images: int) -> Targets:
    parts = {name: column.split(counts[name]) for name, column in columns.items()}
    return Targets({name: parts[name][i] for name in columns} for i in range(images))


def image_name(dataset: DetectionDataset, index: int) -> str:
    """The file of an image if the data set tells it (`image_path(index)`, or `ids`), else its index."""
    if hasattr(dataset, "image_path"):
        return str(dataset.image_path(index))
    return str(dataset.ids[index]) if hasattr(dataset, "ids") else f"index {index}"


def fingerprint(dataset: DetectionDataset) -> str:
    """A short text that differs for another list of images, by which a run knows its data when it is resumed.

    Folders do not count, so that the data may move; and nothing is decoded.
    """
    if hasattr(dataset, "ids"):
        names = [str(name) for name in dataset.ids]
    else:
        names = [str(index) for index in range(len(dataset))]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def _leave_interrupts_to_the_main_process(_worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one still needs its workers to end its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _mix(seed: int, number: int) -> int:
    """One seed from two numbers, so that seed 0, image 1 and seed 1, image 0 differ."""
    return (seed * 1_000_003 + number) % 2**63
