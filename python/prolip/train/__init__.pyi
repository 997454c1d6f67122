from .loop import main as main
