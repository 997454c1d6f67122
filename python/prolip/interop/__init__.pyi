from .embed import Embed as Embed
from .epochs import Epochs as Epochs
from .torch_dataset import BatchDataset as BatchDataset
from .vector_databases import (
    query_vectors as query_vectors,
    read_vectors as read_vectors,
    stored_vectors as stored_vectors,
)
