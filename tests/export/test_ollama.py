"""A Modelfile asks the model as it was trained: its template, filled in as Go does it, writes what the chat format
does.

The oracle is a reader of Go's text/template written here, for the part of it that Ollama's own templates use.
"""

from __future__ import annotations

import re

import pytest
from transformers import AutoTokenizer

from tests.data.templates import KINDS, tokenizer
from tests.export.test_export import bpe_llama
from tests.train.test_loop import config
from tunelab import Run, UserError, export_ollama, finetune
from tunelab.cli import main
from tunelab.data import Message, chat_format
from tunelab.export.ollama import go_template, modelfile, notes_on, pieces_of

TALKS = [
    ["user"],
    ["system", "user"],
    ["user", "assistant", "user"],
    ["system", "user", "assistant", "user", "assistant", "user", "assistant", "user"],
]
REFUSED = {"moving"}  # its system text stands before the last question


def talk(roles):
    return [Message(role, f"{place} {{{{ if }}}} of {role}") for place, role in enumerate(roles)]


# Go's text/template, as far as Ollama's templates go


def go(template: str, system: str, messages: list[dict]) -> str:
    """What Go writes for a template."""
    parts = re.split(r"\{\{(.*?)\}\}", template, flags=re.S)  # texts and actions in turn
    tree, rest = _block([(place % 2 == 1, part) for place, part in enumerate(parts)])
    assert not rest
    return _run(tree, {"$": {"System": system, "Messages": messages}, ".": {"System": system, "Messages": messages}})


def _block(tokens):
    """Nodes up to `else` or `end`, and what follows."""
    nodes = []
    while tokens:
        is_action, part = tokens[0]
        words = part.strip() if is_action else ""
        if words == "end" or words.startswith("else"):
            return nodes, tokens
        tokens = tokens[1:]
        if not is_action:
            nodes.append(("text", part))
        elif words.startswith(("if ", "range ")):
            kind, head = words.split(" ", 1)
            branches = []
            body, tokens = _block(tokens)
            branches.append((head, body))
            while tokens[0][1].strip() != "end":
                condition = tokens[0][1].strip().removeprefix("else").strip().removeprefix("if ")
                body, tokens = _block(tokens[1:])
                branches.append((condition or None, body))
            tokens = tokens[1:]
            nodes.append((kind, branches))
        else:
            nodes.append(("action", words))
    return nodes, tokens


def _run(nodes, scope):
    out = ""
    for kind, what in nodes:
        if kind == "text":
            out += what
        elif kind == "action" and ":=" in what:
            name, expression = what.split(":=")
            scope[name.strip()] = _value(expression, scope)
        elif kind == "action":
            out += _value(what, scope)
        elif kind == "if":
            body = next((body for condition, body in what if condition is None or _value(condition, scope)), [])
            out += _run(body, scope)
        else:
            ((head, body),) = what
            names, values = head.split(":=")
            index, _one = (name.strip() for name in names.split(","))
            for place, one in enumerate(_value(values, scope)):
                out += _run(body, {**scope, index: place, ".": one})
    return out


def _value(expression, scope):
    words = re.findall(r'"[^"]*"|[()]|[^\s()]+', expression.strip())
    value, rest = _call(words, scope)
    assert not rest
    return value


def _call(words, scope):
    values = []
    while words and words[0] != ")":
        if words[0] == "(":
            value, words = _call(words[1:], scope)
            assert words[0] == ")"
            values.append(value)
        else:
            values.append(_one(words[0], scope))
        words = words[1:]
    if callable(values[0]):
        return values[0](*values[1:]), words
    (value,) = values
    return value, words


def _one(word, scope):
    functions = {"eq": lambda a, b: a == b, "not": lambda a: not a, "len": len, "slice": lambda a, i: a[i:]}
    if word in functions:
        return functions[word]
    if word.startswith('"'):
        return word[1:-1]
    if word.isdigit():
        return int(word)
    if word in scope:
        return scope[word]
    name, _, field = word.rpartition(".")
    return scope[name or "."][field]


def asked(chat, turns):
    """The conversation as the model was trained to see it, without what a reader of the file puts first."""
    ((text, _),) = chat.prompt(turns, "here").rows[0]
    return text.removeprefix(chat.tokenizer.bos_token) if chat.starts_with_bos else text


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - REFUSED))
def test_the_go_template_writes_what_the_chat_format_writes(kind):
    made = KINDS[kind]()
    chat = chat_format(made)
    template = go_template(pieces_of(chat))
    for roles in TALKS:
        turns = talk(roles)
        system = "".join(turn.content for turn in turns if turn.role == "system")
        messages = [{"Role": turn.role, "Content": turn.content} for turn in turns]
        assert go(template, system, messages) == asked(chat, turns)


NUMBERED = "{% for m in messages %}{{ loop.index ~ m.role ~ ': ' ~ m.content ~ '<|im_end|>' }}{% endfor %}"


@pytest.mark.parametrize(
    ("make", "reason"),
    [(KINDS["moving"], "moves a turn of the user"), (lambda: tokenizer(NUMBERED), "does not follow from the turns")],
)
def test_a_template_that_does_not_write_turn_after_turn_is_refused_with_another_way(make, reason):
    made = make()
    with pytest.raises(UserError, match=f"{reason}.*--to gguf"):
        pieces_of(chat_format(made))


def test_braces_of_a_chat_template_are_written_as_they_are():
    made = tokenizer(
        "{% for m in messages %}{{ '{' + '{' + m.role + '}' + '}' + m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '{' + '{assistant}' + '}' }}{% endif %}"
    )
    chat = chat_format(made)
    turns = talk(["user"])
    messages = [{"Role": turn.role, "Content": turn.content} for turn in turns]
    assert go(go_template(pieces_of(chat)), "", messages) == asked(chat, turns)


def test_an_answer_that_was_begun_is_gone_on_with():
    made = KINDS["chatml"]()
    messages = [{"Role": "user", "Content": "Hi"}, {"Role": "assistant", "Content": "Well"}]
    written = go(go_template(pieces_of(chat_format(made))), "", messages)
    assert written.endswith("<|im_start|>assistant\nWell")


def test_blanks_that_the_chat_template_takes_away_are_told():
    trims, keeps = KINDS["llama3"](), KINDS["chatml"]()
    assert any("blanks" in note for note in notes_on(trims))
    assert not any("blanks" in note for note in notes_on(keeps))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    folder = bpe_llama(tmp_path_factory.mktemp("bpe"))
    return finetune(config(str(folder)), root=tmp_path_factory.mktemp("runs"))


def with_system(run, system):
    stage = run.config.stages[0]
    data = stage.data.model_copy(update={"system": system})
    return Run.create(run.config.model_copy(update={"stages": (stage.model_copy(update={"data": data}),)}), run.root)


def test_the_folder_holds_the_model_its_template_its_ends_and_how_to_begin(trained, tmp_path):
    said = []
    made = export_ollama(trained, tmp_path / "for-ollama", progress=said.append)
    assert sorted(path.name for path in made.path.iterdir()) == ["Modelfile", "README.md", "model.gguf"]
    text = (made.path / "Modelfile").read_text()
    assert "FROM ./model.gguf\n" in text
    assert 'PARAMETER stop "<|im_end|>"\n' in text
    template = re.search(r'^TEMPLATE """(.*?)"""$', text, re.S | re.M)[1]
    made_for = AutoTokenizer.from_pretrained(trained.config.model.repo_id)
    chat = chat_format(made_for)
    assert go(template, "", [{"Role": "user", "Content": "Hi"}]) == asked(chat, [Message("user", "Hi")])
    assert "You are helpful" in template  # the system text that the chat template puts where there is none
    assert "SYSTEM" not in text
    assert "reading it back" in said
    assert (made.path / "model.gguf").read_bytes()[:4] == b"GGUF"


def test_the_system_prompt_of_the_run_is_the_models(trained):
    chat = KINDS["chatml"]()
    assert 'SYSTEM "Answer briefly."\n' in modelfile(with_system(trained, "Answer briefly."), chat)
    assert 'SYSTEM """Answer\nin "two" lines."""\n' in modelfile(with_system(trained, 'Answer\nin "two" lines.'), chat)
    with pytest.raises(UserError, match="system prompt holds"):
        modelfile(with_system(trained, 'Three """ quotes'), chat)


def test_the_command_line_writes_it(trained, tmp_path, capsys):
    words = ["export", trained.id, "--to", "ollama", "--runs", str(trained.root), "--gguf-type", "q8_0"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert "ollama create" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "a")]) == 2  # nothing is overwritten
