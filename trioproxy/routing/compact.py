"""Routes in less than half the memory: what many of them have in common is one object for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeVar

from trioproxy.routing.route import Backend, Model, Route

MAX_SHARED = 4096
"""Combinations of given fields that are kept for sharing; real routes have a handful."""

M = TypeVar("M", bound=Model)


class _Plan(NamedTuple):
    """How models of one kind are taken apart and put together, without looking anything up for each of them."""

    names: tuple[str, ...]
    attributes: tuple[str, ...]
    """The fields, and what pydantic keeps beside them."""
    from_dict: Callable[[Mapping[str, Any]], tuple[object, ...]]
    from_model: Callable[[Model], tuple[object, ...]]


_set = object.__setattr__
_plans: dict[type[Model], _Plan] = {}
_shared: dict[frozenset[str], set[str]] = {}
_no_metadata: dict[str, Any] = {}


def compact(route: Route) -> Route:
    """An equal route that shares with others what it can, or the same one if it does already."""
    given = _share(route.__pydantic_fields_set__)
    if given is route.__pydantic_fields_set__:
        return route
    slim = _slim(route, given)
    _set(slim, "backends", tuple([_slim(one, _share(one.__pydantic_fields_set__)) for one in route.backends]))
    if not route.metadata:
        _set(slim, "metadata", _no_metadata)
    return slim


def assemble(model: type[M], values: tuple[object, ...], given: set[str]) -> M:
    """A model of the values that `take_apart` gave: validated when they were in such a model, and not again.

    Raises ValueError when there are more or fewer values than fields.
    """
    plan = _plans.get(model) or _make_plan(model)
    if len(values) != len(plan.names):
        raise ValueError(f"{len(values)} values for the {len(plan.names)} fields of a {model.__name__}")
    return _assemble(model, plan, values, _share(given))


def take_apart(model: Model) -> tuple[object, ...]:
    """The values of a model's fields."""
    kind = type(model)
    return (_plans.get(kind) or _make_plan(kind)).from_model(model)


def _slim(model: M, given: set[str]) -> M:
    kind = type(model)
    plan = _plans.get(kind) or _make_plan(kind)
    return _assemble(kind, plan, plan.from_dict(model.__dict__), given)


def _assemble(model: type[M], plan: _Plan, values: tuple[object, ...], given: set[str]) -> M:
    # Attributes are set one by one, so that CPython keeps them as an array with the names in the class. A dict of
    # its own, as pydantic makes one, takes three times as much. `any` runs the map to its end: setting returns None.
    made = model.__new__(model)
    any(map(_set, repeat(made), plan.attributes, (*values, given, None, None)))
    return made


def _share(given: set[str]) -> set[str]:
    """The one set for all models in which these fields were given. Nobody changes it: models are frozen."""
    key = frozenset(given)
    found = _shared.get(key)
    if found is None:
        if len(_shared) >= MAX_SHARED:
            return given
        found = _shared[key] = set(given)
    return found


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
    plan = _make_plan(model)
    _assemble(model, plan, (None,) * len(plan.names), set())


_reserve(Route)
_reserve(Backend)
