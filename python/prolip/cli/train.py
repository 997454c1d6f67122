"""`prolip train RECIPE.toml ... --flag value`: train on one process, or check a run with `--dry-run`."""

from __future__ import annotations

from dataclasses import replace

import tyro

from prolip.cli.command import finish, one_paragraph, share_cores, write_lines
from prolip.data import NativeConfig
from prolip.flags import gather, list_flags
from prolip.train.config import TrainConfig
from prolip.train.config.options import DryRunOptions

_DRY_RUN = {"--dry-run", "--dry_run"}
HELP = """usage: prolip train [RECIPE ...] [--KEY VALUE ...]

Train from recipes and flags. A recipe is a TOML file or a name of `prolip recipes`, such as demo, finetune-clip-vit-b16
or vit-b16-datacomp-1b-1.28b. Every key of a recipe is a flag. Later recipes win, and flags win over recipes. On several
GPUs: torchrun --nproc-per-node N -m prolip.train with the same arguments.

the run:
  --out                  folder of the run
  --resume               auto (after its newest checkpoint), never, a step, or a path
  --samples_seen         samples of the whole run, with repetitions
  --batch_size           samples per step over all processes
  --accumulate           micro-batches per process and step, to save memory
  --seed                 seed of the initial weights and of the loader
data:
  --shards               WebDataset shards: paths, addresses, patterns, or text files that list them
  --data.num_samples     samples of an epoch, for remote shards without an index
  --data.captions.0.sources.0.key   where a sample's caption is, such as txt or a dotted path into its json
  --data.tokenizer.path  tokenizer.json or merges file
  --threads              threads that load and decode
model:
  --architecture         its name, or start_from for that of the start
  --start_from           model to start from: any source of prolip.load
  --lock.image, --lock.text   freeze a tower
optimiser and device:
  --optim.lr, --optim.warmup_steps
  --device               auto, cpu or cuda
  --precision            fp32, bf16 or fp16
while it runs:
  --log_every            steps between two rows of metrics
  --checkpoint_every     steps between two checkpoints
more:
  --dry-run              open everything, compute parameters, memory and hours, and start nothing
  --help-all             all keys, with their defaults
"""


def run(prog: str, arguments: list[str]) -> int:
    """Train, or check a run with --dry-run, or print the help."""
    if _DRY_RUN & set(arguments):
        arguments = [word for word in arguments if word not in _DRY_RUN]
        options, rest = tyro.cli(
            DryRunOptions,
            args=[word for words in gather(arguments, list_flags(TrainConfig)).values() for word in words],
            prog=f"{prog} --dry-run",
            use_underscores=True,
            return_unknown_args=True,
            registry=one_paragraph(),
        )
        share_cores()
        from prolip.train.dry_run import run_dry

        finish(run_dry(options, rest), "the same command without --dry-run")
        return 0
    if {"-h", "--help"} & set(arguments):
        write_lines([HELP])
        return 0
    if "--help-all" in arguments:
        whole = TrainConfig()
        tyro.cli(
            TrainConfig,
            args=["--help"],
            default=replace(whole, data=replace(whole.data, native=NativeConfig())),
            prog=prog,
            use_underscores=True,
            config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
            registry=one_paragraph(),
        )
    share_cores()
    from prolip.train.loop import main

    return main(arguments)
