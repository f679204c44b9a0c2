"""The data card, release/README.md: what the files hold, with the metadata that a data set hub reads."""

from collections.abc import Sequence

import yaml

from rpsg.privacy.card_file import escape
from rpsg.privacy.card_model import Card

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = "n>1M"


def render_data_card(
    card: Card, *, n_texts: int, files: Sequence[str], languages: Sequence[str], has_labels: bool
) -> str:
    """Returns the page; nothing in it is computed from private data outside the ledger."""
    writer = next((flow.model for flow in card.inputs.data_flow if flow.task == "write"), "unknown")
    columns = "id, text" + (" and the labels that were asked for" if has_labels else "")
    protected = "privacy_card.md says what protects the private texts they were made from, and what does not."
    guarded = (
        " In the csv file, a cell that a spreadsheet would take for a formula begins with an apostrophe."
        if any(name.endswith(".csv") for name in files)
        else ""
    )
    return (
        f"---\n{_metadata(card, n_texts, files, languages, has_labels=has_labels)}---\n\n"
        f"# Synthetic texts\n\n**{card.statement}**\n\n"
        f"{n_texts} texts written by a language model ({escape(writer)}), none by a person. "
        f"Files: {', '.join(files)}; columns: {columns}. "
        f"Ids are random and row order is shuffled.{guarded}\n\n"
        "What they state as fact is invented or distorted: use them to develop and test software and "
        f"methods, not to learn about any person. {protected}\n\n"
        "No licence is set: the owner of the private texts decides how the synthetic ones may be used.\n"
    )


def _metadata(
    card: Card, n_texts: int, files: Sequence[str], languages: Sequence[str], *, has_labels: bool
) -> str:
    tags = ["synthetic", "rpsg"]
    if card.figures and card.secure_noise:
        tags.append("differential-privacy")
    tasks = ["text-generation", *(["text-classification"] if has_labels else [])]
    size = next((name for limit, name in _SIZES if n_texts < limit), _LARGER)
    values = {
        "pretty_name": f"Synthetic texts {card.inputs.run_id}",
        "license": "unknown",
        "language": list(languages),
        "task_categories": tasks,
        "size_categories": [size],
        "tags": tags,
        # One of the files: the others hold the same rows.
        "configs": [{"config_name": "default", "data_files": files[0]}],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
