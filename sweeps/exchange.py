"""A trained run as a folder that transformers opens, and such a folder as a model of ours."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from hybrid import codec, cost, huggingface
from hybrid.console import reading
from hybrid.model import HybridLM
from hybrid.spec import ModelSpec
from sweeps import results
from sweeps.trial import weights
from sweeps.trial.data.sources import Synthetic, TextSource
from sweeps.trial.data.streams import open_tokens
from sweeps.trial.data.tokenizer import SEPARATOR, ByteBPE
from sweeps.trial.device import choose_precision
from sweeps.trial.measure import held_out_loss
from sweeps.trial.recipe import Recipe
from sweeps.trial.record import Record


def export(run_id: str, destination: Path, *, folder: Path) -> None:
    """Write the run's model, and its tokenizer if it has one, as the new folder `destination`.

    `folder` holds the results. Raises LookupError for a run that is not there, FileNotFoundError
    for one that kept no weights, ValueError where transformers' Jamba cannot be this model or the
    text no longer gives the tokenizer of the run, and FileExistsError for a destination that is.
    """
    record, sweep_folder = results.find(run_id, folder=folder)
    spec: ModelSpec = codec.loads(ModelSpec, record.spec)
    model = weights.load(spec, weights.path_of(record, sweep_folder))
    tokenizer = _tokenizer_to_export(record, sweep_folder)
    huggingface.save(model, destination, tokenizer=tokenizer)


def _tokenizer_to_export(record: Record, sweep_folder: Path) -> huggingface.Tokenizer | None:
    """Return the tokenizer of a run; None where it was trained on tasks, which have none."""
    recipe: Recipe = codec.loads(Recipe, record.recipe)
    if isinstance(recipe.source, Synthetic):
        return None
    tokenizer = tokenizer_of(record, sweep_folder)
    return huggingface.Tokenizer(json_text=tokenizer.json_text, separator=SEPARATOR)


def tokenizer_of(record: Record, sweep_folder: Path) -> ByteBPE:
    """Return the tokenizer of a run: the one beside its weights, else made anew from its text.

    Raises ValueError where that is not the tokenizer that the run was trained with.
    """
    kept = weights.tokenizer_path(weights.path_of(record, sweep_folder))
    if kept.exists():
        return _checked(ByteBPE(kept.read_text(encoding="utf-8")), record, str(kept))
    recipe: Recipe = codec.loads(Recipe, record.recipe)
    spec: ModelSpec = codec.loads(ModelSpec, record.spec)
    return _checked(open_tokens(recipe.source, spec.vocab).tokenizer, record, "its text")


def _checked(tokenizer: ByteBPE, record: Record, where: str) -> ByteBPE:
    if tokenizer.sha256 != record.tokenizer_sha256:
        raise ValueError(
            f"{record.run_id} was trained with tokenizer {record.tokenizer_sha256}, "
            f"but {where} now gives {tokenizer.sha256}"
        )
    return tokenizer


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A model from a folder, and what can be said of it."""

    model: HybridLM
    params: int
    active_params: int
    bits_per_byte: dict[str, float] | None  # held out, by domain; None for another tokenizer


def read(folder: Path, source: TextSource, recipe: Recipe) -> Imported:
    """Return the Jamba model in `folder`, with its loss on the held-out text of `source`.

    The loss is measured as `recipe` says, and only where the folder's tokenizer is the one that
    this text gives at its vocabulary. Errors are those of `hybrid.huggingface.load`.
    """
    model = huggingface.load(folder)
    losses = None
    path = folder / "tokenizer.json"
    if path.exists():
        tokens = open_tokens(source, model.spec.vocab)
        with reading(path):
            own = path.read_text(encoding="utf-8")
        if tokens.tokenizer.json_text == own:
            precision = choose_precision(recipe.precision, model.embed.weight.device)
            losses = {
                domain: held_out_loss(model, tokens, domain, recipe, precision).bits_per_byte
                for domain in tokens.domains
            }
    return Imported(
        model=model,
        params=cost.params(model.spec),
        active_params=cost.active_params(model.spec),
        bits_per_byte=losses,
    )


def describe(imported: Imported) -> str:
    """Return what was read, in a few lines."""
    spec = imported.model.spec
    lines = [
        f"{len(spec.layers)} layers, attention:Mamba {spec.ratio}, width {spec.width}, "
        f"vocabulary {spec.vocab:,}",
        f"{imported.params:,} parameters, {imported.active_params:,} active",
    ]
    if imported.bits_per_byte is None:
        lines.append("held-out loss: not measured, its tokenizer is not that of the text")
    else:
        each = "  ".join(f"{name} {x:.4f}" for name, x in imported.bits_per_byte.items())
        average = mean(imported.bits_per_byte.values())
        lines.append(f"held-out bits per byte: {each}  (mean {average:.4f})")
    return "\n".join(lines)
