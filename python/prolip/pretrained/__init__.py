"""Any model source (run, checkpoint, folder, hub, open_clip:...) to a network, image preprocessing and tokenizer."""
