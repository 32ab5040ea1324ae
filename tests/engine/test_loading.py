"""Loading: the order of the images, their batches, and what an epoch shows, whatever the number of workers."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_run import Images, sample_images

from ssdlib.data import VOCDataset, sample_root
from ssdlib.data.transforms import Augmentation
from ssdlib.engine.loading import (
    Batches,
    ShuffledEpochs,
    Targets,
    TrainingImages,
    fingerprint,
    image_name,
    make_loader,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sample() -> Images:
    return sample_images()


def test_order_of_the_images():
    sampler = ShuffledEpochs(10, seed=3)
    first = list(sampler)
    assert list(sampler) == first
    assert sorted(first) == list(range(10))
    sampler.epoch = 2
    third = list(sampler)
    assert sorted(third) == list(range(20, 30))  # the epoch can be told from the index
    assert [i - 20 for i in third] != first
    assert list(ShuffledEpochs(10, seed=4)) != first
    assert len(sampler) == 10


def test_an_image_is_varied_anew_in_each_epoch(sample: Images):
    dataset = TrainingImages(sample, 64, Augmentation(color=False), seed=0)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, next_epoch = dataset[2][0], dataset[2][0], dataset[2 + len(sample)][0]
    assert torch.equal(first, again)
    assert not torch.equal(first, next_epoch)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are left alone


def test_batches_of_an_epoch():
    batches = Batches(10, 4, seed=3)
    order = list(ShuffledEpochs(10, seed=3))
    assert list(batches) == [order[:4], order[4:8]]  # what is left over makes no batch
    assert len(batches) == 2
    batches.order.epoch = 1
    assert [[i - 10 for i in batch] for batch in batches] == [batches.images(0), batches.images(1)]
    assert next(iter(batches)) != order[:4]


def test_few_images_make_one_batch():
    assert [sorted(batch) for batch in Batches(3, 8, seed=0)] == [[0, 1, 2]]
    assert len(Batches(3, 8, seed=0)) == 1


@given(length=st.integers(4, 40), per_process=st.integers(1, 4), world_size=st.integers(1, 4), start=st.integers(0, 5))
def test_processes_share_each_batch_and_an_epoch_can_be_entered_in_its_middle(
    length: int, per_process: int, world_size: int, start: int
):
    alone = list(Batches(length, per_process * world_size, seed=1))
    together = []
    for rank in range(world_size):
        batches = Batches(length, per_process * world_size, 1, rank, world_size)
        batches.start = start
        together.append(list(batches))
    assert all(len(part) == len(alone[start:]) for part in together)
    for number, batch in enumerate(alone[start:]):
        shares = [part[number] for part in together]
        assert all(shares)  # nobody comes away empty
        assert sorted(i for share in shares for i in share) == sorted(batch)


def test_batches_that_cannot_be_shared():
    with pytest.raises(ValueError, match="batch_size counts the images of all processes: 6 cannot be shared by 4"):
        Batches(100, 6, 0, 0, 4)
    with pytest.raises(ValueError, match="4 processes need at least as many images, there are 3"):
        Batches(3, 8, 0, 0, 4)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_epoch_is_the_same_for_any_number_of_workers(sample: Images):
    def epochs(workers: int) -> list[torch.Tensor]:
        images = TrainingImages(sample, 32, Augmentation(), seed=5)
        batches = Batches(len(images), 2, seed=5)
        loader = make_loader(images, batches, workers, CPU)
        seen = []
        for epoch in range(2):
            batches.order.epoch = epoch
            seen += [
                torch.cat((pixels.flatten(), *(t["boxes"].flatten() for t in targets))) for pixels, targets in loader
            ]
        return seen

    torch.manual_seed(1)
    state = torch.get_rng_state()
    alone = epochs(0)
    assert torch.equal(torch.get_rng_state(), state)  # loading takes none of the caller's random numbers
    torch.manual_seed(2)
    assert len(alone) == 6
    assert not torch.equal(alone[0], alone[3])
    assert all(torch.equal(a, b) for a, b in zip(alone, epochs(2), strict=True))


@pytest.mark.parametrize("kind", ["alike", "one lacks an entry", "a number", "two formats", "none"])
def test_targets_come_through_a_pickle_as_they_were(kind: str):
    targets = [
        {"boxes": torch.rand(count, 4), "labels": torch.arange(count), "difficult": torch.zeros(count) > 0}
        for count in (2, 0, 3)
    ]
    if kind == "one lacks an entry":
        del targets[2]["difficult"]
    elif kind == "a number":
        targets[0]["id"] = targets[1]["id"] = targets[2]["id"] = torch.tensor(7)
    elif kind == "two formats":
        targets[1]["labels"] = torch.tensor([])
    elif kind == "none":
        targets = []
    sent = Targets(targets)
    assert (len(sent.__reduce__()[1]) == 3) is (kind in ("alike", "none"))  # a tensor for each of the entries
    for copied in (pickle.loads(pickle.dumps(sent)), sent.pin_memory()):
        assert type(copied) is Targets
        assert [list(each) for each in copied] == [list(each) for each in targets]
        for ours, theirs in zip(copied, targets, strict=True):
            for name in theirs:
                assert ours[name].dtype is theirs[name].dtype
                assert torch.equal(ours[name], theirs[name])


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_large_batch_needs_few_open_files(sample: Images):
    import resource

    many = Images(sample.items * 20, sample.classes)
    images, usual = TrainingImages(many, 32, None, seed=0), resource.getrlimit(resource.RLIMIT_NOFILE)
    loader = make_loader(images, Batches(len(many), 120, 0), 1, CPU)
    loader.timeout = 20  # where the files are too few, the batch never comes
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, usual[1]))
    try:
        assert [len(targets) for _, targets in loader] == [120]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)


def test_batches_that_are_skipped_are_not_loaded():
    class Counting(Images):
        def __getitem__(self, index: int):
            loaded.append(index)
            return super().__getitem__(index)

    loaded: list[int] = []
    images = TrainingImages(Counting(sample_images(6).items, "abcdef"), 32, None, seed=0)
    batches = Batches(6, 2, seed=0)
    batches.start = 2
    assert len(list(make_loader(images, batches, 0, CPU))) == 1
    assert loaded == batches.images(2)


def test_names_of_images(sample: Images):
    voc = VOCDataset(sample_root(), "test")
    assert image_name(voc, 3) == str(voc.image_path(3))
    assert Path(image_name(voc, 3)).is_file()
    assert image_name(sample, 3) == "index 3"


def test_a_fingerprint_is_of_the_list_of_images(sample: Images):
    train, test = VOCDataset(sample_root(), "train"), VOCDataset(sample_root(), "test")
    assert fingerprint(train) == fingerprint(VOCDataset(sample_root(), "train")) != fingerprint(test)
    assert fingerprint(sample) != fingerprint(Images(sample.items[:2], sample.classes))
