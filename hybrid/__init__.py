"""Hybrid language models: attention, Mamba and mixture-of-experts layers in one parametric family.

The letters that name tensor shapes in the whole repository:

    B batch          D model width        N state size (Mamba)
    T new tokens     H query heads        R rank of the dt projection (Mamba)
    S tokens seen    K key/value heads    W width of the short convolution (Mamba)
    V vocabulary     P head width         F feed-forward hidden width
    X experts        E inner width (Mamba)  G groups of heads that share B and C (Mamba-2)

`x_BTD` is a tensor of shape (batch, new tokens, width). This package imports nothing here, so that
`hybrid.spec` and `hybrid.cost` stay free of torch.
"""
