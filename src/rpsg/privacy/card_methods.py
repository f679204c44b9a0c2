"""What a privacy card says of the methods that RPSG is compared with, where their words differ."""

from collections.abc import Mapping, Sequence

from rpsg.errors import PrivacyError
from rpsg.method_config import GUARANTEES, MethodName
from rpsg.privacy.card_model import CardGuarantee, CardInputs
from rpsg.privacy.lines import LedgerLine

# Without a guarantee: what the texts are, in place of what RPSG's are.
_STATEMENTS: Mapping[MethodName, str] = {
    "rpsg-published": (
        "No differential privacy of any kind. Each output is an LLM rewrite of a summary of one private "
        "record, chosen as the paper's published code does it: scores scaled by the record's own range, a "
        "gate and a second try without noise, and in between noise of a nominal epsilon, drawn from a seed. "
        "No finite epsilon holds."
    ),
    "augpe": (
        "No differential privacy of any kind. The texts were written from public prompts, and private texts "
        "chose among them by exact votes: no noise was used."
    ),
    "rupta": (
        "No differential privacy of any kind. Each output is one private text, rewritten by a language model "
        "until a second prompt of that model named nothing in it that gives anybody away, or rounds ran out."
    ),
    "copy": (
        "No protection of any kind: each row is a private text, copied word for word. This is the control "
        "that an audit must catch. Never publish it."
    ),
}
_NOT_COVERED: Mapping[MethodName, tuple[str, ...]] = {
    "augpe": (
        "what the votes of the private texts reveal of them",
        "how many private texts there are of each label",
    ),
    "rupta": (
        "wording and facts that a rewrite keeps",
        "what the model that looks for giveaways does not notice",
        "labels, which are those of the private texts",
    ),
    "copy": ("the private texts themselves, which are in the files",),
}
# With one: a sentence beside the figures.
_ADDED: Mapping[MethodName, str] = {
    "public": " No private text was used to write them: they come from public prompts and declared labels.",
}
_COPIES = "private texts, word for word: nothing protects them"
_READ = "Whoever reads the files reads the private texts."


def own_statement(method: MethodName, guarantee: CardGuarantee) -> str | None:
    """Returns a method's statement where it has no guarantee; None where the general words are right."""
    return _STATEMENTS.get(method) if guarantee == "none" else None


def added_sentence(method: MethodName, guarantee: CardGuarantee) -> str:
    """Returns what a method adds to the statement of its guarantee."""
    return _ADDED.get(method, "") if guarantee == "end-to-end" else ""


def not_covered(inputs: CardInputs, general: Sequence[str]) -> Sequence[str]:
    """Returns what the guarantee does not reach: the method's own, where it has none, or the general."""
    return _NOT_COVERED.get(inputs.method, general) if inputs.guarantee == "none" else general


def what_is_released(inputs: CardInputs, general: str) -> str:
    """Returns what protects the released texts, in a line."""
    return _COPIES if inputs.method == "copy" else general


def what_an_attacker_can(inputs: CardInputs, general: str) -> str:
    """Returns what an attacker can do at most."""
    return _READ if inputs.method == "copy" else general


def check_method(inputs: CardInputs, lines: Sequence[LedgerLine]) -> None:
    """Refuses lines that the method does not make.

    Raises:
        PrivacyError: the guarantee is none that the method gives, or the lines are another method's.
    """
    if inputs.guarantee not in GUARANTEES[inputs.method]:
        raise PrivacyError(f"method {inputs.method} does not give guarantee {inputs.guarantee}")
    if inputs.method == "public" and any(line.events for line in lines):
        raise PrivacyError("a run from public prompts alone has a release that reads private text")
    if inputs.method == "copy" and [line.mechanism for line in lines] != ["NonPrivateTexts"]:
        raise PrivacyError("a run that copies private texts has one release, without noise")
