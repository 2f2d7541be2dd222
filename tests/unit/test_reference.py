"""Function references: one strict grammar, and refusals that propose what to write."""

import string
from keyword import iskeyword

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobd.model.errors import UsageError
from jobd.model.reference import MAX_CHARACTERS, parse_reference

NAMES = st.text(string.ascii_letters + "_é", min_size=1, max_size=8).filter(
    lambda name: name.isidentifier() and not iskeyword(name)
)
DOTTED = st.lists(NAMES, min_size=1, max_size=4).map(".".join)
NEARLY = st.text("ab.:/ \\()<>_1-", max_size=12)


def refusal(text: str) -> UsageError:
    """Parse a text that must be refused."""
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "module", "attributes"),
    [
        ("math:factorial", "math", "factorial"),
        ("pkg.mod:Class.method", "pkg.mod", "Class.method"),
        ("_private:_f", "_private", "_f"),
        ("tâches:réduire", "tâches", "réduire"),
        ("match:case", "match", "case"),
    ],
)
def test_a_reference_splits_at_its_colon(text: str, module: str, attributes: str) -> None:
    """Both parts come back as they were written; soft keywords are names."""
    assert parse_reference(text) == (module, attributes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the function reference is empty"),
        ("math.factorial", "'math.factorial' is not a function reference: write 'math:factorial'"),
        ("pkg.mod.f", "'pkg.mod.f' is not a function reference: write 'pkg.mod:f'"),
        ("factorial", "'factorial' is not a function reference: write 'MODULE:factorial'"),
        (":f", "':f' names no module: write 'MODULE:f'"),
        ("m:", "'m:' names no function: write 'm:FUNCTION'"),
        (":", "':' names no module"),
        ("a:b:c", "'a:b:c' has more than one colon: write 'a:b.c'"),
        ("a..b:c", "'a..b:c' has a dot with no name beside it: write 'a.b:c'"),
        (".a:f", "'.a:f' has a dot with no name beside it: write 'a:f'"),
        ("m: f", "'m: f' has white space in it: write 'm:f'"),
        ("m:f\n", "'m:f\\n' has white space in it: write 'm:f'"),
        ("m:f(1)", "'m:f(1)' is a call: write 'm:f'"),
        ("m:class", "in 'm:class', 'class' is a keyword of Python"),
        ("my-tasks:f", "in 'my-tasks:f', 'my-tasks' is not a Python name"),
        ("m:<lambda>", "'m:<lambda>' is a lambda, which a worker cannot find by name"),
        (
            "m:f.<locals>.g",
            "'m:f.<locals>.g' is a function inside another function, which a worker cannot find by name",
        ),
        (
            "__main__:f",
            "'__main__:f' names a script as it was run, which a worker cannot import",
        ),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_to_write(text: str, message: str) -> None:
    """The sentence is exact, and there is always a hint beside it."""
    refused = refusal(text)
    assert refused.message == message
    assert refused.hint


@pytest.mark.parametrize(
    ("text", "proposal"),
    [
        ("./mytasks.py:f", "mytasks:f"),
        ("mytasks.py", "mytasks:FUNCTION"),
        ("src/pkg/tasks.py:f", "src.pkg.tasks:f"),
        ("src\\tasks.py:f", "src.tasks:f"),
        ("/home/me/mytasks.py:f", "mytasks:f"),
        ("../mytasks.py:f", "mytasks:f"),
    ],
)
def test_a_path_is_answered_with_its_module(text: str, proposal: str) -> None:
    """Shells complete file names, so people write them."""
    refused = refusal(text)
    assert refused.message.endswith(f" is the path of a file, not a module: write '{proposal}'")
    assert refused.hint.startswith("start the daemon in the directory of ")


def test_a_long_reference_is_refused_without_repeating_it() -> None:
    """The limit is on characters, and 500 of them still pass."""
    text = "m:" + "f" * (MAX_CHARACTERS - 2)
    assert parse_reference(text) == ("m", text[2:])
    message = refusal(text + "f").message
    assert message == "the function reference has 501 characters: at most 500 are allowed"


@given(DOTTED, DOTTED)
def test_every_pair_of_dotted_names_is_a_reference(module: str, attributes: str) -> None:
    """What the grammar allows comes back unchanged."""
    if module != "__main__":
        assert parse_reference(f"{module}:{attributes}") == (module, attributes)


@given(st.one_of(st.text(), NEARLY, st.text(st.characters(categories=["Cs", "Cc", "L"]))))
@example("\ud800:f")
@example(".py:f")
@example("//:f")
def test_any_text_parses_or_is_refused_in_one_line(text: str) -> None:
    """There is no third outcome, and what parses is the text itself."""
    try:
        module, attributes = parse_reference(text)
    except UsageError as refused:
        line = f"{refused.message} ({refused.hint})"
        assert line.isprintable()
        line.encode()
    else:
        assert f"{module}:{attributes}" == text


@given(NEARLY)
def test_what_a_refusal_proposes_would_be_accepted(text: str) -> None:
    """Nobody is sent from one refusal to the next."""
    try:
        parse_reference(text)
    except UsageError as refused:
        _, proposed, rest = refused.message.rpartition(": write '")
        if proposed:
            parse_reference(rest.removesuffix("'"))
