"""Captions from JSON members."""

import json
import random

from hypothesis import given, settings, strategies as st
from tests.support.shards import TOKENIZER, config, encoded, write_tar

from prolip.data import BatchLoader, CaptionConfig, CaptionSource
from prolip.data.tokenizer import Tokenizer

CLIP = Tokenizer(TOKENIZER)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**20), 10**20) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=12)
@given(data=st.data())
def test_any_json_that_python_writes_is_read(data, tmp_path_factory):
    """NaN, half pairs of surrogates, escapes, big numbers, equal keys: what `json.loads` takes is taken."""
    draw = random.Random(data.draw(st.integers(0, 2**32)))
    texts, expected = {}, {}
    for number in range(40):
        caption = data.draw(st.text(max_size=12))
        parts = [json.dumps(data.draw(JSON), ensure_ascii=draw.random() < 0.5) for _ in range(2)]
        written = json.dumps(caption, ensure_ascii=draw.random() < 0.5)
        gap = draw.choice(["", " ", "\n\t"])
        whole = (
            f'{gap}{{{gap}"a"{gap}:{gap}{parts[0]},{gap}"c":"x","c"{gap}:{written}{gap},"z":{gap}{parts[1]}{gap}}}{gap}'
        )
        encoded_whole = whole.encode("utf-8", "replace")
        assert json.loads(encoded_whole)
        texts[f"k{number}"] = encoded_whole
        expected[f"k{number}"] = CLIP.encode([json.loads(encoded_whole)["c"]])[0].tolist()
    path = tmp_path_factory.mktemp("json") / "texts.tar"
    image = ("png", encoded((1, 2, 3)))
    write_tar(path, [(f"{key}.{name}", data) for key, data in texts.items() for name, data in (image, ("json", data))])
    slot = CaptionConfig(sources=(CaptionSource(key="c"),))
    reading = config(str(path), captions=(slot,), shuffle_window=0, last_batch="keep")
    with BatchLoader(reading) as loader:
        batches = list(loader)
    keys = [key for batch in batches for key in batch.keys]
    ids = [row for batch in batches for row in batch.token_ids[0].tolist()]
    assert dict(zip(keys, ids, strict=True)) == expected
