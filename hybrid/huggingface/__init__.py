"""The exchange with Hugging Face: our model to and from transformers' Jamba.

`config.py` turns a spec into their configuration and back, `names.py` holds the one table of tensor
names, `writer.py` and `reader.py` a folder of files, `balance.py` their load-balancing loss. The
folder is what their `save_pretrained` writes; only safetensors is needed to write or read one, and
transformers itself only to open it with theirs: `pip install 'hybrid-workbench[hf]'` has both.

Opened with transformers' Jamba our model computes the same, if three traps there are stepped round:
without attention layers pass `use_cache=False`, for its cache raises; read a prompt in one call and
then one token a call, for several tokens on a cache start Mamba's state anew; and where no layer
has a router do not ask for router logits. (Seen with transformers 5.23.)
"""

from hybrid.huggingface.balance import pooled_balance_loss
from hybrid.huggingface.config import config_of, spec_of
from hybrid.huggingface.names import views
from hybrid.huggingface.reader import load
from hybrid.huggingface.writer import Tokenizer, save

__all__ = ["Tokenizer", "config_of", "load", "pooled_balance_loss", "save", "spec_of", "views"]
