"""`prolip export`: a run or a checkpoint in the hub's layout."""

from __future__ import annotations

from prolip.cli.command import ended_by_sigterm, finish, parse, prepare
from prolip.interop.config import ExportOptions


def _next(options: ExportOptions) -> str:
    target = options.push if options.out is None else options.out
    match options.format:
        case "prolip":
            source = f"hf-hub:{target}" if options.out is None else str(target)
            return f"prolip classify IMAGE LABEL ... --checkpoint {source}"
        case "transformers":
            return f'transformers.AutoModel.from_pretrained("{target}", trust_remote_code=True)'
        case "sentence-transformers":
            return f'sentence_transformers.SentenceTransformer("{target}", trust_remote_code=True)'
        case "onnx":
            return "onnxruntime.InferenceSession opens both towers (examples/onnx_embed.py)"


def run(prog: str, arguments: list[str]) -> int:
    """Run the command."""
    options = parse(ExportOptions, prog, arguments)
    prepare()
    from prolip.interop.export import run_export

    with ended_by_sigterm():
        return finish(run_export(options), _next(options), [options.out, options.push])
