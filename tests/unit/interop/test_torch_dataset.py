"""The loader as a torch data set: one iteration per epoch, a saved position, no worker processes."""

import json
import pickle

import pytest
import torch
from tests.support.shards import FULL, config
from torch.utils.data import DataLoader

from prolip.data import BatchLoader
from prolip.data.device import DeviceBatch
from prolip.interop import BatchDataset


def settings(shards):
    return config(shards, **(FULL | {"num_epochs": 1}))


def of_the_loader(shards, epochs=3):
    return [batch.keys for batch in BatchLoader(config(shards, **(FULL | {"num_epochs": epochs})))]


def test_one_iteration_of_a_dataloader_is_one_epoch(shards):
    dataset = BatchDataset(settings(shards))
    loader = DataLoader(dataset, batch_size=None)
    assert len(loader) == 4
    epochs = [[batch.keys for batch in loader] for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [4, 4, 4]
    assert [keys for epoch in epochs for keys in epoch] == of_the_loader(shards)
    assert epochs[0] != epochs[1], "each epoch has an order of its own"
    for batch in loader:
        assert isinstance(batch, DeviceBatch)
        assert batch.images.dtype == torch.float32
        assert batch.images.shape == (4, 3, 8, 8)
        assert batch.token_ids.shape == (2, 4, 12)
    dataset.close()


def test_a_saved_state_resumes_at_the_next_batch(shards, tmp_path):
    expected = of_the_loader(shards)
    for stop in (1, 3, 4, 6, 8):
        dataset = BatchDataset(settings(shards))
        loader = DataLoader(dataset, batch_size=None)
        seen = []
        while len(seen) < stop:
            for batch in loader:
                seen.append(batch.keys)
                if len(seen) == stop:
                    (tmp_path / "state.json").write_text(json.dumps(dataset.state_dict()))
                    break
        other = BatchDataset(settings(shards))
        other.load_state_dict(json.loads((tmp_path / "state.json").read_text()))
        while len(seen) < 12:
            seen += [batch.keys for batch in other]
        assert seen == expected, stop
        # The same object goes on too, and a whole epoch comes behind the rest of one.
        dataset.load_state_dict(json.loads((tmp_path / "state.json").read_text()))
        assert [batch.keys for batch in dataset] == expected[stop : -(-stop // 4) * 4]
        assert len(list(dataset)) == 4


def test_an_abandoned_iteration_starts_over(shards):
    dataset, expected = BatchDataset(settings(shards)), of_the_loader(shards)
    first = iter(dataset)
    assert next(first).keys == expected[0]
    assert [batch.keys for batch in dataset] == expected[:4]
    with pytest.raises(RuntimeError, match="closed"):
        next(first)
    dataset.set_epoch(2)
    assert dataset.state_dict()["epoch"] == 2
    assert [batch.keys for batch in dataset] == expected[8:]
    dataset.close()
    dataset.set_epoch(0)
    assert [batch.keys for batch in dataset] == expected[:4]


@pytest.mark.parametrize("options", [{"batch_size": None, "num_workers": 1}, {}, {"batch_size": 4}])
def test_dataloaders_that_batch_or_fork_are_refused(shards, options):
    """By default torch makes batches of one item."""
    dataset = BatchDataset(settings(shards))
    with pytest.raises(RuntimeError, match="BatchDataset"):
        next(iter(DataLoader(dataset, **options)))
    with pytest.raises(RuntimeError, match="BatchDataset"):
        pickle.dumps(dataset)
