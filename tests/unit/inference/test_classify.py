"""Zero-shot probabilities: the model's own scale and bias, prompt ensembles, prompt weights."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prolip.errors import UserError
from prolip.gaussian import Gaussian
from prolip.inference.classify import Similarity, check_labels, classification
from prolip.metrics.bprw import reweight_prompts
from prolip.metrics.config import BprwConfig

LABELS = ["cat", "dog", "car"]


def some(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return Gaussian(F.normalize(mean, dim=-1), torch.randn(*shape, generator=generator, dtype=torch.float64) - 3)


def classify(images, prompts, labels=LABELS, *, weights=None, scale=30.0, bias=-12.0):
    return classification(images, prompts, labels, weights=weights, similarity=Similarity(scale, bias))


def test_probabilities_follow_the_definition():
    images, prompts = some(4, 8), some(3, 2, 8, seed=1)
    found = classify(images, prompts)
    for n in range(4):
        logits = []
        for c in range(3):
            mean = F.normalize(prompts.mean[c].mean(0), dim=0)
            var = prompts.var[c].mean(0)
            logits.append(30 * (float(images.mean[n] @ mean) - float(var.sum()) / 2))
        total = sum(math.exp(logit) for logit in logits)
        assert found.probabilities[n].tolist() == pytest.approx([math.exp(logit) / total for logit in logits])
        assert found.labels[n] == LABELS[max(range(3), key=logits.__getitem__)]
        spread = float(images.total_var[n]) / 2
        expected = [1 / (1 + math.exp(-(logit - 30 * spread - 12))) for logit in logits]
        assert found.match[n].tolist() == pytest.approx(expected)
    assert torch.equal(found.uncertainty, images.total_var)
    assert torch.allclose(found.label_uncertainty, prompts.total_var.mean(1))


def test_a_prior_multiplies_the_probabilities():
    images, prompts = some(4, 8), some(3, 2, 8, seed=1)
    similarity = Similarity(30.0, -12.0)
    even = classification(images, prompts, LABELS, weights=None, similarity=similarity)
    found = classification(images, prompts, LABELS, weights=None, similarity=similarity, prior=[6, 3, 0])
    expected = even.probabilities * torch.tensor([6.0, 3.0, 0.0])
    torch.testing.assert_close(found.probabilities, expected / expected.sum(dim=1, keepdim=True))
    assert found.labels == [LABELS[place] for place in expected.argmax(dim=1)]
    assert found.labels != even.labels
    assert found.match is not None
    assert even.match is not None
    assert torch.equal(found.match, even.match), "each pair is on its own"


def test_prompt_weights_give_the_reweighted_classifier():
    images, prompts = some(20, 8), some(3, 4, 8, seed=1)
    found = reweight_prompts(prompts, images, BprwConfig(num_neighbors=5))
    weighted = classify(images, prompts, weights=found.weights)
    classifier = found.as_classifier()
    logits = 30 * (images.mean @ classifier.weight.T - classifier.total_var / 2)
    assert torch.allclose(weighted.probabilities, logits.softmax(1))
    assert not torch.allclose(weighted.probabilities, classify(images, prompts).probabilities, atol=1e-3)
    with pytest.raises(UserError, match=r"^prompt_weights"):
        classify(images, prompts, weights=found.weights[:, :3])


@pytest.mark.parametrize("labels", ["cat", [], ["a", "b", "a"], ["a", 1], np.array([])], ids=str)
def test_invalid_labels_are_refused(labels):
    with pytest.raises(UserError, match=r"^labels"):
        check_labels(labels)
    check_labels(np.array(["a", "b"]))
