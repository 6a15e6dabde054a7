"""Models put together from values that were validated before, in less than half the memory of those pydantic makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeVar

from trioproxy.routing.route import Backend, Model, Route

MAX_SHARED = 4096
"""Combinations of given fields that are kept for sharing; real routes have a handful."""

M = TypeVar("M", bound=Model)


class Given(set[str]):
    """The names of the fields that were given, one set for all models in which it was the same ones.

    Nobody changes it: models are frozen, and a copy of one has a copy of it.
    """

    __slots__ = ()


class _Plan(NamedTuple):
    """How models of one kind are taken apart and put together, without looking anything up for each of them."""

    names: tuple[str, ...]
    attributes: tuple[str, ...]
    """The fields, and what pydantic keeps beside them."""
    from_dict: Callable[[Mapping[str, Any]], tuple[object, ...]]
    from_model: Callable[[Model], tuple[object, ...]]


_set = object.__setattr__
_new = object.__new__
_plans: dict[type[Model], _Plan] = {}
_shared: dict[frozenset[str], Given] = {}


def share(given: Iterable[str]) -> set[str]:
    """The one set for all models in which these fields were given."""
    if type(given) is Given:
        return given
    key = frozenset(given)
    found = _shared.get(key)
    if found is None:
        if len(_shared) >= MAX_SHARED:
            return set(key)
        found = _shared[key] = Given(key)
    return found


def assemble(model: type[M], values: tuple[object, ...], given: set[str]) -> M:
    """A model of the values that `take_apart` gave: validated when they were in such a model, and not again.

    Raises ValueError when there are more or fewer values than fields.
    """
    names = (_plans.get(model) or _make_plan(model)).names
    if len(values) != len(names):
        raise ValueError(f"{len(values)} values for the {len(names)} fields of a {model.__name__}")
    return put_together(model, attributes_of(model), (*values, share(given), None, None))


def take_apart(model: Model) -> tuple[object, ...]:
    """The values of a model's fields."""
    kind = type(model)
    return (_plans.get(kind) or _make_plan(kind)).from_model(model)


def slim(model: M) -> M:
    """An equal model, put together here."""
    kind = type(model)
    plan = _plans.get(kind) or _make_plan(kind)
    given = share(model.__pydantic_fields_set__)
    return put_together(kind, plan.attributes, (*plan.from_dict(model.__dict__), given, None, None))


def attributes_of(model: type[Model]) -> tuple[str, ...]:
    """The names of what `put_together` wants: the fields, which of them were given, and twice what is None here."""
    return (_plans.get(model) or _make_plan(model)).attributes


def put_together(model: type[M], attributes: tuple[str, ...], values: Iterable[object]) -> M:
    """A model of so many values as attributes."""
    # Attributes are set one by one, so that CPython keeps them as an array with the names in the class. A dict of
    # its own, as pydantic makes one, takes three times as much. `any` runs the map to its end: setting returns None.
    made = _new(model)
    any(map(_set, repeat(made), attributes, values))
    return made


def _make_plan(model: type[Model]) -> _Plan:
    names = tuple(model.model_fields)
    attributes = (*names, "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")

    def from_dict(values: Mapping[str, Any]) -> tuple[object, ...]:
        return tuple(values[name] for name in names)

    def from_model(one: Model) -> tuple[object, ...]:
        return tuple(getattr(one, name) for name in names)

    plan = _Plan(names, attributes, from_dict, from_model)
    if len(names) > 1:  # a getter of one name gives the value itself
        plan = plan._replace(from_dict=itemgetter(*names), from_model=attrgetter(*names))
    _plans[model] = plan
    return plan


def _reserve(model: type[Model]) -> None:
    # A class learns the names of its instances' attributes from the first ones, and learns no more once it has had
    # many with dicts of their own, as pydantic makes them. Where CPython works otherwise, this does nothing.
    attributes = attributes_of(model)
    put_together(model, attributes, repeat(None, len(attributes)))


_reserve(Route)
_reserve(Backend)
