"""The interface of open_clip's training as its main branch has it, written anew and small: what the adapter meets.

No registry has that branch. A job of the CI runs the adapter with it; these modules stand for it in all other tests.
Model, transforms and tokenizer are those of the installed open_clip.
"""
