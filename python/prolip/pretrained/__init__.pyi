from .download import DownloadError as DownloadError
from .sources import load_network as load_network, new_model as new_model, read_config as read_config
