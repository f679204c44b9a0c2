"""The whole pipeline through models that a user brings, all tiny and random: BART, GPT-2, BERT, RoBERTa."""

from pathlib import Path

from rpsg.config import RunConfig
from rpsg.data import read_corpus, sample_path
from rpsg.pipeline import run
from tiny_models import tiny_bart, tiny_bert, tiny_classifier, tiny_gpt2

PROMPTS = {
    "abstract.txt": "[user]\n{text}",
    "write.txt": "[user]\n{text}\n[assistant]\n{opener}",
    "rewrite.txt": "[user]\n{text}\n[assistant]\n{opener}",
    "public.txt": "[user]\na letter\n[assistant]\n{opener}",
    "openers.txt": "my\nthe\nafter",
}


def test_the_pipeline_runs_with_other_models_for_every_task(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("bart", "gpt2", "bert", "roberta", "prompts")}
    for folder in folders.values():
        folder.mkdir()
    for name, text in PROMPTS.items():
        (folders["prompts"] / name).write_text(text)
    tiny_bart(folders["bart"])
    tiny_gpt2(folders["gpt2"], positions=256)
    tiny_bert(folders["bert"])
    tiny_classifier(folders["roberta"])
    config = RunConfig.parse(
        {
            "guarantee": "selection",
            "n": 6,
            "models": {
                "abstract": str(folders["bart"]),
                "write": str(folders["gpt2"]),
                "embed": str(folders["bert"]),
                "sentiment": str(folders["roberta"]),
            },
            "abstract": {"max_tokens": 40, "min_words": 4},
            "write": {
                "prompt": str(folders["prompts"]), "min_length": 20, "max_length": 40, "n_drafts": 2,
                "temperature": 1.5,
            },
            "refine": {"similarity": {"enabled": False}, "nll": {"enabled": False}},
            "output": {"folder": str(tmp_path / "run")},
        }
    )  # fmt: skip
    result = run(config, read_corpus(sample_path("posts_train.jsonl"), label_columns=("topic",)))
    assert result.complete and len(result.texts) == 6
    assert all(len(text.text.split()) >= 12 and text.labels["topic"] for text in result.texts)
    card = (result.folder / "release/privacy_card.md").read_text()
    assert all(f"| {name} | local |" in card for name in ("bart", "gpt2", "bert", "roberta"))
    assert str(tmp_path) not in card + (result.folder / "release/README.md").read_text()
