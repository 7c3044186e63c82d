"""The Jamba-style constructor: a few dials of the paper, turned into a ModelSpec. Free of torch.

A Jamba block (arXiv 2403.19887, section 2) has `l` layers, `a` attention layers for every `m` Mamba
layers, and a mixture of experts in place of the MLP in every `e`-th layer. The paper's own model is

    jamba(vocab=65536, width=4096, hidden=14336, blocks=4, l=8, ratio=(1, 7),
          attention=Attention(heads=32, kv_heads=8), moe=MoE(hidden=14336, n_experts=16, top_k=2))
"""

from hybrid.spec import (
    MLP,
    Attention,
    FeedForward,
    Layer,
    Mamba,
    Mixer,
    ModelSpec,
    MoE,
    StateSpace,
    refuse_unless,
    refuse_unless_positive,
    require,
)


def jamba(
    *,
    vocab: int,
    width: int,
    hidden: int,
    blocks: int,
    l: int,  # noqa: E741 - the paper's letter
    ratio: tuple[int, int],
    attention: Attention,
    mamba: StateSpace | None = None,
    attention_offset: int | None = None,
    moe: MoE | None = None,
    e: int = 2,
    moe_offset: int = 1,
    tied: bool = False,
) -> ModelSpec:
    """Return `blocks` Jamba blocks of `l` layers with attention:Mamba `ratio` (a, m).

    `hidden` is the width of the dense MLPs, `mamba` None the default Mamba-1. Without `moe` every
    feed-forward is dense; with it, 0-based layers i with i % e == moe_offset are mixtures of
    experts. `attention_offset` is the 0-based place of the (first) attention layer in each group of
    a+m layers; None puts it at (a+m)//2, which is the released model's 4 of 8. Raises ValueError,
    naming field and value, for a ratio that does not fit `l`, an offset outside its period, or e
    below 1.
    """
    mamba = Mamba() if mamba is None else mamba
    refuse_unless_positive("jamba", blocks=blocks, l=l, e=e)
    word = mixer_word(l=l, ratio=ratio, attention_offset=attention_offset) * blocks
    refuse_unless(
        type(moe_offset) is int and 0 <= moe_offset < e,
        f"jamba: moe_offset={moe_offset!r} must lie in 0..e-1={e - 1} (e={e})",
    )
    mixers: dict[str, Mixer] = {"A": attention, "M": mamba}

    def feed_forward(index: int) -> FeedForward:
        return moe if moe is not None and index % e == moe_offset else MLP(hidden=hidden)

    return ModelSpec(
        vocab=vocab,
        width=width,
        layers=tuple(
            Layer(mixer=mixers[letter], feed_forward=feed_forward(index))
            for index, letter in enumerate(word)
        ),
        tied=tied,
    )


def mixer_word(
    *,
    l: int,  # noqa: E741
    ratio: tuple[int, int],
    attention_offset: int | None = None,
) -> str:
    """Return the mixers of one block as a word, such as "MMMMAMMM" for l=8 and ratio (1, 7).

    In every period of a+m layers the a attention layers are spread evenly, starting at the offset:
    the j-th stands at (offset + j (a+m) // a) mod (a+m). The paper gives a single place (a = 1);
    the spread for a > 1 is this workbench's own choice.
    """
    refuse_unless(
        isinstance(ratio, tuple)
        and len(ratio) == 2
        and all(type(x) is int and x >= 0 for x in ratio)
        and sum(ratio) > 0,
        f"jamba: ratio={ratio!r} must be two whole numbers (attention, Mamba), not both 0",
    )
    a, m = ratio
    period = a + m
    refuse_unless(
        l % period == 0,
        f"jamba: ratio={a}:{m} needs a block length that is a multiple of {period}; got l={l}",
    )
    offset = period // 2 if attention_offset is None else attention_offset
    refuse_unless(
        type(offset) is int and 0 <= offset < period,
        f"jamba: attention_offset={offset} must lie in 0..{period - 1} for ratio={a}:{m}",
    )
    places = {(offset + j * period // a) % period for j in range(a)}
    return "".join("A" if i in places else "M" for i in range(period)) * (l // period)


def parse_ratio(text: str) -> tuple[int, int]:
    """Return (a, m) from "a:m", as in "1:7"; ValueError says what a ratio looks like."""
    left, _, right = text.partition(":")
    require(
        left.isdecimal() and right.isdecimal(),
        f"ratio {text!r} must be two whole numbers as in '1:7' (attention:Mamba)",
    )
    return int(left), int(right)
