"""What models and judges need of other packages: imported once, by a process that others are forked from.

Nothing here computes, as a library that has started its threads cannot be forked; and OpenDP is not among
them, so that whatever state its source of noise has begins in the process that draws.
"""

import sklearn.decomposition
import sklearn.linear_model
import spacy
from transformers.models.bert import modeling_bert
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.llama import modeling_llama

__all__ = ["modeling_bert", "modeling_gpt2", "modeling_llama", "sklearn", "spacy"]
