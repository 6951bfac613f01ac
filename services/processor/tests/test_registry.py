"""Declaring handlers, and finding the one that serves a type."""

import re
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import example, given, strategies
from pydantic import BaseModel, Field, ValidationError

from holdfast.domain.errors import ConfigurationError
from holdfast.processor import BatchContext, Context, Handlers
from holdfast.processor.handlers.discovery import discover


class Order(BaseModel):
    order_id: str


def handle(order: Order, ctx: Context) -> None:
    """Do nothing."""


def registered(**patterns: tuple[str, ...]) -> Handlers:
    handlers = Handlers()
    for name, listed in patterns.items():
        handlers.on(*listed, name=name)(handle)
    return handlers


@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        ("com.acme.order.placed", "exact"),
        ("com.acme.order.cancelled", "orders"),
        ("com.acme.order.eu.placed", "orders"),
        ("com.acme.invoice", "all"),
        ("com.acmeXorder", None),
        ("com.acme", None),
        ("org.other", None),
    ],
)
def test_exact_beats_pattern_and_longer_beats_shorter(event_type: str, name: str | None) -> None:
    handlers = registered(all=("com.acme.*",), orders=("com.acme.order.*",), exact=("com.acme.order.placed",))

    found = handlers.find(event_type)

    assert (found and found.name) == name


def test_a_pattern_may_have_its_star_anywhere() -> None:
    handlers = registered(v2=("com.acme.*.v2",))

    assert handlers.find("com.acme.order.v2") is not None
    assert handlers.find("com.acme.order.v3") is None


SOME_TEXT = strategies.text("ab.\n", max_size=12)
SOME_PATTERN = strategies.text("ab.*", min_size=1, max_size=8).filter(lambda pattern: "*" in pattern)


@given(SOME_PATTERN, SOME_TEXT)
@example("a*a", "a")
@example("*.a*a.", "..aa.")
def test_a_star_is_any_run_of_characters_as_in_a_regular_expression(pattern: str, event_type: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))

    found = registered(one=(pattern,)).find(event_type)

    assert (found is not None) == (re.fullmatch(expression, event_type, re.DOTALL) is not None)


@pytest.mark.parametrize("pattern", ["*.*.*.created", "*.*.*.*.*.*.x", "*a*a*a*a*a*b"])
@pytest.mark.parametrize("event_type", ["." * 1_000, "a" * 1_000, ".a" * 500])
def test_a_pattern_of_many_stars_takes_no_time(pattern: str, event_type: str) -> None:
    handlers = registered(one=(pattern,))
    handlers.find(event_type)
    begun = time.process_time()

    for _ in range(100):
        assert handlers.find(event_type) is None

    assert time.process_time() - begun < 2, "a regular expression takes more than that for one of them"


def test_one_pattern_for_two_handlers_names_both_places() -> None:
    handlers = registered(first=("a.b",))

    with pytest.raises(
        ConfigurationError, match=r"first at .*test_registry.py:\d+ and second at .*test_registry.py:\d+"
    ):
        handlers.on("a.b", name="second")(handle)


def test_one_name_for_two_handlers_is_refused() -> None:
    handlers = registered(same=("a.b",))

    with pytest.raises(ConfigurationError, match="named 'same'"):
        handlers.on("a.c", name="same")(handle)


def test_two_packages_that_claim_one_type_do_not_start() -> None:
    with pytest.raises(ConfigurationError, match=r"claim 'a[.]b'"):
        registered(first=("a.b",)).include(registered(second=("a.b",)))


def no_arguments() -> None:
    """Not a handler."""


def one_argument(order: Order) -> None:
    """Not a handler."""


def unknown_annotation(order: "Nowhere", ctx: Context) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Not a handler."""


@pytest.mark.parametrize("function", [no_arguments, one_argument, unknown_annotation])
def test_a_function_of_another_shape_is_refused_where_it_stands(function: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"test_registry.py:\d+"):
        Handlers().on("a.b", name="x")(function)


@pytest.mark.parametrize(
    ("patterns", "name"), [((), "x"), (("",), "x"), (("a\nb",), "x"), (("a.b",), ""), (("a.b",), "x y")]
)
def test_names_and_patterns_are_checked(patterns: tuple[str, ...], name: str) -> None:
    with pytest.raises(ConfigurationError):
        Handlers().on(*patterns, name=name)(handle)


def test_a_named_collection_is_loaded() -> None:
    assert [handler.name for handler in discover("github_activity.handlers:handlers")] == ["github-activity"]


def test_installed_packages_are_found() -> None:
    assert "github-activity" in [handler.name for handler in discover(None)]


@pytest.mark.parametrize("path", ["nowhere:handlers", "json:nowhere", "json", "json:loads"])
def test_a_wrong_path_says_what_it_must_be(path: str) -> None:
    with pytest.raises(ConfigurationError, match=f"HOLDFAST_HANDLERS={path}"):
        discover(path)


def swapped(ctx: Context, order: Order) -> None:
    """Not a handler."""


def second_is_a_model(data: Any, order: Order) -> None:
    """Not a handler."""


def keyword_only(order: Order, *, ctx: Context) -> None:
    """Not a handler."""


def nothing_to_check(order: "Unknowable", ctx: Context) -> None:
    """Not a handler."""


def generator(order: Order, ctx: Context) -> Any:  # noqa: ARG001
    """Not a handler."""
    yield


class Unknowable:
    """Pydantic knows no way to make one."""


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        (swapped, "the payload comes first"),
        (second_is_a_model, "the payload comes first"),
        (keyword_only, "two arguments"),
        (nothing_to_check, "must be a pydantic model"),
        (generator, "leave out 'yield'"),
        (partial(handle), "a handler is a function"),
        (Unknowable, "a handler is a function"),
    ],
)
def test_a_refusal_names_the_remedy(function: Any, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        Handlers().on("a.b", name="x")(function)


@pytest.mark.parametrize(
    "options", [{"retry": 3}, {"final": ValueError}, {"final": ("ValueError",)}, {"final": (KeyboardInterrupt,)}]
)
def test_options_of_the_wrong_type_are_refused_where_they_stand(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"test_registry.py:\d+: (retry|final) takes"):
        Handlers().on("a.b", name="x", **options)(handle)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0}, {"timeout": True}, {"timeout": "30"}, {"timeout": 86_401}, {"timeout": None},
        {"transactional": "yes"}, {"ordering": "source"}, {"ordering": True}, {"batch": 0}, {"batch": 101}, {"batch": True},
        {"batch": "50"},
    ],
)  # fmt: skip
def test_how_a_handler_runs_is_checked_where_it_stands(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"test_registry.py:\d+: (timeout|transactional|ordering|batch) takes"):
        Handlers().on("a.b", name="x", **options)(handle)


def test_a_batch_shares_a_transaction_so_it_needs_one() -> None:
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        Handlers().on("a.b", name="x", batch=50, transactional=False)(handle)


def test_a_handler_of_lists_takes_lists_and_says_how_long() -> None:
    def handle_all(numbers: list[int], ctx: BatchContext) -> None: ...

    def handle_one(number: int, ctx: BatchContext) -> None: ...

    with pytest.raises(ConfigurationError, match="batch=50"):
        Handlers().on("a.b", name="x")(handle_all)
    with pytest.raises(ConfigurationError, match=r"payloads: list\[Model\]"):
        Handlers().on("a.b", name="x", batch=50)(handle_one)


TYPES = [
    "a",
    "a.b",
    "a.b.c",
    "a.b.c.d",
    "a.c",
    "b",
    "a-b",
    "a+b",
    "A.B",
    "a.b\nc",
    "aXb",
    "ordered",
    "x.ordered.y",
    "ü",
]


@pytest.mark.parametrize(
    ("ordered", "unordered"),
    [
        (["a.b"], []),
        (["a.*"], []),
        (["a.*"], ["a.b"]),
        (["a.b"], ["a.*"]),
        (["a.*"], ["a.b.*", "a.c"]),
        (["a.b.*", "b"], ["a.*", "*"]),
        (["*"], ["a*b", "x.*"]),
        (["*"], []),
        (["a+b", "ü"], ["*"]),
        ([], ["*"]),
        (["a*c"], ["*b.c"]),
    ],
)
def test_a_type_is_ordered_if_the_handler_that_serves_it_is(ordered: list[str], unordered: list[str]) -> None:
    handlers = Handlers()
    for name, patterns, ordering in (("ordered", ordered, "subject"), ("unordered", unordered, None)):
        if patterns:
            handlers.on(*patterns, name=name, ordering=ordering)(handle)  # type: ignore[arg-type]

    for each in TYPES:
        serving = handlers.find(each)
        assert handlers.is_ordered(each) == (None if serving is None else serving.name == "ordered"), each
    assert handlers.exact_types() == [each for each in [*ordered, *unordered] if "*" not in each]


def constrained(amount: Annotated[int, Field(ge=10)], ctx: Context) -> None:
    """Wants ten or more."""


def test_constraints_in_the_annotation_are_checked() -> None:
    handlers = Handlers()
    handlers.on("a.b", name="x")(constrained)

    with pytest.raises(ValidationError):
        next(iter(handlers)).payload.validate_python(9)


def test_a_refused_handler_leaves_nothing_behind() -> None:
    handlers = registered(first=("a.b",))

    with pytest.raises(ConfigurationError):
        handlers.on("a.c", "a.b", name="second")(handle)

    assert handlers.find("a.c") is None
    assert [handler.name for handler in handlers] == ["first"]


def test_the_decorated_function_stays_itself() -> None:
    assert Handlers().on("a.b", name="x")(handle) is handle


@pytest.mark.parametrize("event_type", ["com/acme+x", "urn:acme:order", "a b", "ü"])
def test_every_type_that_can_be_sent_can_be_claimed(event_type: str) -> None:
    assert registered(x=(event_type,)).find(event_type) is not None


def test_a_collection_without_handlers_is_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("holds_no_handlers.py").write_text(
        "from holdfast.processor import Handlers\nempty = Handlers()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigurationError, match="holds_no_handlers:empty declares no handlers"):
        discover("holds_no_handlers:empty")
