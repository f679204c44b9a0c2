"""Tiny randomly initialised models on disk, of the architectures that users name."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

WORDS = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "was",
    "my",
    "his",
    "her",
    "dog",
    "cat",
    "house",
    "doctor",
    "pain",
    "work",
    "money",
    "family",
    "night",
    "morning",
    "felt",
    "went",
    "said",
    "lost",
    "found",
    "good",
    "bad",
    "terrible",
    "wonderful",
    "study",
    "patients",
    "results",
    "showed",
    "treatment",
    "group",
    "after",
    "before",
    "with",
    "without",
    "never",
    "always",
    "because",
    "help",
    "need",
    "asked",
    "told",
    "town",
    "river",
    "train",
    "phone",
    "letter",
    ".",
]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def save_tokenizer(folder: Path, *, limit: int, with_begin: bool = True) -> int:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if with_begin else "$A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=limit,
    ).save_pretrained(folder)
    return len(vocabulary)


def _save(model: PreTrainedModel, folder: Path) -> Path:
    # Larger weights than a fresh model has, so that tokens differ clearly in likelihood.
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                weights.mul_(6.0)
    model.save_pretrained(folder)
    return folder


def tiny_bart(folder: Path) -> Path:
    torch.manual_seed(1)
    size = save_tokenizer(folder, limit=64)
    config = BartConfig(
        vocab_size=size, d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    model.generation_config.forced_eos_token_id = None
    # Sentences end now and then: a text without a full stop counts as cut off.
    model.final_logits_bias[0, size - 1] = 4.0
    return _save(model, folder)


def tiny_t5(folder: Path) -> Path:
    torch.manual_seed(2)
    size = save_tokenizer(folder, limit=48, with_begin=False)
    config = T5Config(
        vocab_size=size, d_model=32, d_kv=16, num_heads=2, d_ff=48, num_layers=1, n_positions=48,
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
    )  # fmt: skip
    return _save(T5ForConditionalGeneration(config), folder)


def tiny_t5_encoder(folder: Path) -> Path:
    torch.manual_seed(3)
    size = save_tokenizer(folder, limit=16, with_begin=False)
    config = T5Config(
        vocab_size=size,
        d_model=32,
        d_kv=16,
        num_heads=2,
        d_ff=48,
        num_layers=1,
        pad_token_id=0,
        eos_token_id=2,
    )
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def tiny_bert(folder: Path) -> Path:
    torch.manual_seed(4)
    size = save_tokenizer(folder, limit=16)
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=16, pad_token_id=0,
    )  # fmt: skip
    return _save(BertModel(config), folder)


def tiny_classifier(folder: Path, labels: dict[int, str] | None = None) -> Path:
    torch.manual_seed(5)
    size = save_tokenizer(folder, limit=16)
    labels = labels or {0: "NEGATIVE", 1: "POSITIVE"}
    config = RobertaConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=18, pad_token_id=0, bos_token_id=1, eos_token_id=2, id2label=labels,
        label2id={label: i for i, label in labels.items()},
    )  # fmt: skip
    return _save(RobertaForSequenceClassification(config), folder)


def tiny_token_classifier(folder: Path, labels: tuple[str, ...]) -> Path:
    """The architecture of bigcode/starpii: a BERT that names a label a token."""
    torch.manual_seed(9)
    size = save_tokenizer(folder, limit=16)
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=18, pad_token_id=0, id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    return _save(BertForTokenClassification(config), folder)


def tiny_gpt2(folder: Path, *, positions: int = 64) -> Path:
    torch.manual_seed(6)
    size = save_tokenizer(folder, limit=positions)
    config = GPT2Config(
        vocab_size=size, n_embd=32, n_layer=1, n_head=2, n_positions=positions, bos_token_id=1, eos_token_id=2
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.ln_f.bias += 20.0 * model.transformer.wte.weight[size - 1]
    return _save(model, folder)


CHAT = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)


def tiny_llama(folder: Path, *, chat: bool = True) -> Path:
    """A model with three query heads to a key head, like the embedded one."""
    torch.manual_seed(7)
    size = save_tokenizer(folder, limit=128)
    if chat:
        (folder / "chat_template.jinja").write_text(CHAT)
    config = LlamaConfig(
        vocab_size=size, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return _save(LlamaForCausalLM(config), folder)


def tiny_phi4(folder: Path) -> Path:
    """The architecture of microsoft/phi-4: fused projections, five query heads to two key heads."""
    return _tiny_phi(folder, num_attention_heads=10, num_key_value_heads=2, hidden_size=80)


def tiny_phi4_mini(folder: Path) -> Path:
    """That of microsoft/Phi-4-mini-instruct: tied embeddings, partial and scaled rotary positions."""
    return _tiny_phi(
        folder,
        num_attention_heads=6,
        num_key_value_heads=2,
        hidden_size=96,
        tie_word_embeddings=True,
        original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * 6,
            "long_factor": [1.5] * 6,
            "original_max_position_embeddings": 64,
        },
    )


def _tiny_phi(folder: Path, **settings: object) -> Path:
    torch.manual_seed(8)
    size = save_tokenizer(folder, limit=128)
    (folder / "chat_template.jinja").write_text(CHAT)
    config = Phi3Config(
        vocab_size=size, intermediate_size=64, num_hidden_layers=2, max_position_embeddings=128,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, sliding_window=None, **settings,
    )  # fmt: skip
    return _save(Phi3ForCausalLM(config), folder)
