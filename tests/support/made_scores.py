"""Parts with any scores, as `prolip embed` writes them, without a model."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tests.support.vector_rows import write_parts

from prolip.embeddings.storage import Manifest, PartNotes, part_name, schema
from prolip.gaussian import Gaussian
from prolip.store.folder import Folder


def write_scores(folder, parts):
    """Writes parts of images with such total variances, and constants else, which take no space.

    The keys are k0, k1, … Two parts have a source: 0.tar, 0.tar, 1.tar, … Every second row of a source is missing.
    """
    write_parts(folder, {"image": Gaussian.point(torch.ones(1, 1))}, [1])
    columns, count, above, files = schema(1, "float32", log_var=True), 0, 0, {}
    for number, scores in enumerate(parts):
        size, source, name = len(scores), f"{number // 2}.tar", part_name("image", number)
        above = above if number % 2 else 0
        constant, lists = np.zeros(size, np.int32), pa.FixedSizeListArray.from_arrays(np.zeros(size, np.float32), 1)
        rows = np.arange(above, above + 2 * size, 2, dtype=np.uint32)
        keys = [f"k{place}" for place in range(count, count + size)]
        total_var = np.asarray(scores, np.float32)
        notes = PartNotes(number=number, kind="image", source=source, stamp="7", weights="", rows=size)
        told = {b"prolip": json.dumps(dataclasses.asdict(notes))}
        found = [
            pa.DictionaryArray.from_arrays(constant, [source]),
            rows,
            keys,
            lists,
            lists,
            total_var,
            constant,
            constant,
        ]
        constants = ["source", "mean.list.element", "log_var.list.element", "width", "height"]
        table = pa.table(found, schema=columns.with_metadata(told))
        pq.write_table(table, folder / name, row_group_size=4096, compression="none", use_dictionary=constants)
        count, above, files[name] = count + size, above + 2 * size, size
    made = Folder(str(folder))
    dataclasses.replace(Manifest.read(made), parts=files).write(made)
