"""Ways out of Jinja's sandbox that are known from elsewhere: none leads anywhere, and none stores as a workflow."""

import pytest

from engine.errors import UserError
from engine.expressions import ExpressionError, evaluate, render, render_text
from engine.loader import load_data


class Loaded:
    """What must never be reachable: an object with attributes and methods in the scope by mistake."""

    secret = "s3cret"

    def reveal(self) -> str:
        return self.secret

    def __str__(self) -> str:
        return self.secret


SCOPE = {"input": {"s": "x", "d": {"k": 1}, "l": [1]}, "run": {"id": "r"}, "steps": {}, "leak": Loaded(), "f": print}

ESCAPES = [
    "''.__class__", "''.__class__.__mro__[1].__subclasses__()", "()['__class__']", "[]['__class__']", "{}.__class__", "input.__class__", "input['__class__']",
    "''['__class__']", "'' | attr('__class__')", "input | attr('s')", "'' ['__cl' ~ 'ass__']", "1.0.__class__", "(1).real", "1 .real", "none.__class__", "true.__class__",
    "'{0.__class__}'.format(1)", "'%s'.format_map", "'a'.format", "'a' | format(1)", "'%c' | format(1)", "'{}'.format_map(input)", "'a'.join", "'a'.encode()", "'a'.upper()", "'a'.split",
    "input.d.keys()", "input.d.items()", "input.d.get('k')", "input.d.pop('k')", "input.d.clear()", "input.d.update", "input.l.append(1)", "input.l.append", "input.l.sort()", "input.items()",
    "cycler", "cycler.__init__.__globals__.os", "cycler('a')", "joiner", "joiner.__init__", "namespace", "namespace(a=1)", "lipsum", "lipsum()", "lipsum.__globals__['os'].popen('id').read()", "dict", "dict(a=1)",
    "self", "self._TemplateReference__context", "self.__init__", "context", "caller", "varargs", "kwargs", "loop", "super()", "_", "gettext('a')", "config", "request", "url_for", "get_flashed_messages", "g",
    "range.__class__", "range(1).__class__", "range(10**9)", "range(9999999999)", "range(1, 2, 0)", "range(*input.l)", "range(stop=1)", "range", "range('a')", "range(1)[0].real",
    "input.s | map('upper')", "input.l | map('attr', '__class__')", "input.l | map(attribute='__class__')", "input.l | select('callable')", "input.l | selectattr('__class__')", "input.l | map('map', 'upper')", "input.l | groupby('x')",
    "input.s | xmlattr", "input.s | pprint", "input.s | safe", "input.s | escape", "input.s | e", "input.s | urlize", "input.s | filesizeformat", "input.s | random", "input.s | batch(1)", "input.s | slice(1)", "input.d | dictsort",
    "input.s is callable", "input.s is filter", "input.s is sameas input.s", "input.s is escaped", "input.s is eq leak", "input.s is iterable",
    "2 ** 99999999", "9**9**9", "'a' * 999999999", "[1] * 999999999", "999999999 * 'a'", "'%99999999d' % 1", "(1,) * 99999", "input.s.__getattribute__('x')", "leak.secret", "leak.reveal()", "leak['secret']", "leak", "leak ~ ''",
    "leak | string", "leak | tojson", "leak | length", "leak == 1 or leak.secret", "[leak]", "{'a': leak}", "leak | default('x') | upper", "f", "f('x')", "f.__self__", "f.__globals__", "lambda: 1", "(lambda: 1)()", "x := 1", "await input", "yield",
    "__import__('os')", "import os", "open('/etc/passwd')", "exec('1')", "eval('1')", "input.s if true", "input.s;1", "*input.l", "**input.d", "input.s!r", "input.s:>10", "f'{input.s}'", "`id`", "input->s", "$input", "@input", "input?.s",
    "'\\ud800'", "'\\x00' ~ '\\udfff'", "{'a': 1, **input.d}", "[*input.l]", "input.l[::0]", "input.l['0':]", "input.l[true]", "input.d[1]", "input.d[none]", "input.s[1.5]", "input.s['0']", "'a' in 1", "steps", "steps[input.s]", "steps['a' ~ 'b']",
    "'a' | truncate(-1)", "'a' | truncate(99, false, leak)", "1 | round(999999)", "'a' | date('%1000000Y')", "0 | date('%n%n%Q')", "1e400 | date", "'[' | fromjson", "'\"\\\\ud800\"' | fromjson", "'[' * 10", "input.l | join(leak)", "[leak] | join",
    "[leak] | sort", "[leak] | unique", "[leak, leak] | max", "[leak] | sum", "1 | int(2, 3, 4)", "'a' | replace('', 'b' ~ leak)", "input.s | string(1)", "input | items(1)", "' ' | default(1, 2, 3, 4)", "\x00}", "\x00%", "1 \x00} 2",
]  # fmt: skip


@pytest.mark.parametrize("expression", ESCAPES)
def test_no_known_escape_gives_a_value(expression: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(expression, SCOPE)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("expression", ESCAPES)
def test_no_known_escape_works_inside_text_or_blocks(expression: str) -> None:
    with pytest.raises(ExpressionError):
        render_text(f"a ${{{expression}}} b", SCOPE)
    with pytest.raises(ExpressionError):
        render_text(f"{{% for a in [{expression}] %}}${{a}}{{% endfor %}}", SCOPE)


def test_an_object_that_is_no_data_never_comes_out() -> None:
    for value in ("${leak}", "a ${leak}", {"a": ["${leak}"]}):
        with pytest.raises(ExpressionError):
            render(value, SCOPE)


def test_what_is_wrong_whatever_the_scope_holds_is_refused_when_it_is_stored() -> None:
    for expression in (
        "''.upper()",
        "input | attr('x')",
        "2 ** 9",
        "cycler",
        "namespace()",
        "steps[input.x]",
        "self",
        "lipsum",
    ):
        with pytest.raises(UserError) as caught:
            load_data({"name": "w", "steps": [{"id": "a", "type": "set", "value": f"${{{expression}}}"}]})
        assert caught.value.code == "invalid_workflow" and caught.value.details[0].path == "steps[0].value"


@pytest.mark.parametrize(
    "expression",
    [
        "input.a in many",
        "many | sort | length",
        "many | min | length",
        "many | max | length",
        "[" + ", ".join(["many[0] < input.a"] * 100) + "] | length",
    ],
)
def test_comparing_long_texts_is_paid_for(expression: str) -> None:
    texts = ["x" * 2_000_000 + end for end in "abb"]
    many = [texts[1], texts[2]] * 1_000  # the same few objects, alike to the last character
    with pytest.raises(ExpressionError, match="too much work"):
        evaluate(expression, {"input": {"a": "x" * 2_000_000 + "c"}, "many": many})
    assert evaluate("a == b or a < b", {"a": texts[0], "b": texts[1]})
